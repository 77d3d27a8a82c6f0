# make demo and make test set everything up by themselves; they need Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check format messages docs dist tables bench bench-small clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train, forget and compare on bundled digits"
	@echo "make test    set up, then run the tests"
	@echo "make check   format, lint, types, layers"
	@echo "make format  format the code"
	@echo "make messages   write the list of all messages that the tests compare, tests/golden/messages.txt"
	@echo "make docs    build the documentation as a site of files, in site/"
	@echo "make dist    build the package, check it, and run the demo from its wheel"
	@echo "make tables  write the tables and pictures of README.md and docs/ from the committed records"
	@echo "make bench   measure how long forgetting takes, and how that grows"
	@echo "make bench-small   compare the methods that need a few images only, on Fashion-MNIST"

# one environment for everything; made again when a requirement or the version changes
$(VENV)/ready: pyproject.toml constraints.txt src/unhot/version.py
	test -x $(BIN)/python || $(or $(shell command -v $(PYTHON)),python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/unhot demo

test: $(VENV)/ready
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

messages: $(VENV)/ready
	$(BIN)/python tests/messages.py

docs: build/gallery/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir site
	$(BIN)/python docs/pages/check.py site

# audits that the site shows; made again when code changes
build/gallery/ready: docs/pages/gallery.py $(shell find src -name '*.py') | $(VENV)/ready
	OMP_NUM_THREADS=1 $(BIN)/python docs/pages/gallery.py build/gallery
	touch $@

# the demo runs from the wheel in a new environment, with the dependencies of the other one but not its checkout
dist: $(VENV)/ready
	rm -rf dist build/wheel build/demo
	$(BIN)/python -m build --outdir dist > /dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv build/wheel
	build/wheel/bin/python -I -m pip install --quiet --no-deps dist/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(echo build/wheel/lib/python*/site-packages)/dependencies.pth"
	cd build && wheel/bin/python -I -c 'import unhot; assert "/build/wheel/" in unhot.__file__, unhot.__file__'
	cd build && wheel/bin/python -I -m unhot demo --out demo

tables: $(VENV)/ready
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_pictures.py
	@echo "docs/pictures/features.svg is made by docs/make_features.py, of the folder of unhot demo."

bench: $(VENV)/ready
	$(BIN)/python benchmarks/forget_speed.py
	$(BIN)/python benchmarks/cost_growth.py

bench-small: $(VENV)/ready
	$(BIN)/unhot bench benchmarks/grids/small.toml --out bench-small

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
