"""The names that others rely on: lazy, sorted, and the same in all three places where they are written."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_origin

import pytest

import unhot


def imported_for_types() -> set[str]:
    tree = ast.parse(Path(inspect.getsourcefile(unhot) or "").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_three_lists_of_names_are_the_same() -> None:
    assert set(unhot.__all__) == set(unhot._HOMES) | set(unhot._MODULES)
    assert set(unhot.__all__) == imported_for_types()
    assert len(unhot.__all__) == len(set(unhot.__all__)) <= 40
    assert dir(unhot) == unhot.__all__
    assert unhot.__all__ == sorted(unhot.__all__)


@pytest.mark.parametrize("name", unhot.__all__)
def test_every_name_is_the_one_of_its_home(name: str) -> None:
    home = unhot._HOMES.get(name)
    expected = (
        importlib.import_module(f"unhot.{name}") if home is None else getattr(importlib.import_module(home), name)
    )
    assert getattr(unhot, name) is expected
    assert inspect.getdoc(expected) or get_origin(expected) is Literal  # an alias of types has no place for words


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'unhot'.*attribute.*'forgett'"):
        unhot.forgett  # noqa: B018


def test_a_checkout_that_is_not_installed_says_its_version(tmp_path: Path) -> None:
    assert version("unhot") == unhot.__version__
    code = """
import importlib.metadata as metadata
known = metadata.version
def version(name):
    if name == "unhot":
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
from unhot.cli import main
from unhot.records.environment import Environment
assert main(["--version"]) == 0
print(Environment.here().unhot)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [unhot.__version__] * 2, done.stderr


LIGHT = {
    "import": "import unhot",
    "help": "from unhot.cli import main; assert main(['--help']) == 0",
    "version": "from unhot.cli import main; assert main(['--version']) == 0",
    "help of a command": "from unhot.cli import main; assert main(['audit', '--help']) == 0",
    "list": "from unhot.cli import main; assert main(['list', 'methods', '--json']) == 0",
    "list of metrics": "from unhot.cli import main; assert main(['list', 'metrics']) == 0",
    "list of attacks": "from unhot.cli import main; assert main(['list', 'attacks']) == 0",
    "bound": "from unhot.evaluation.requirement import Requirement; Requirement.parse('mia_auc<=0.6')",
    "wrong command": "from unhot.cli import main; assert main(['nope']) == 2",
    "core": "import unhot.errors, unhot.registry, unhot.records.base, unhot.files, unhot.report.page",
}


@pytest.mark.parametrize("what", LIGHT)
def test_torch_is_not_imported_for(what: str, tmp_path: Path) -> None:
    heavy = {"torch", "torchvision", "sklearn", "scipy", "accelerate", *(["pydantic"] if what == "help" else [])}
    code = f"import sys; {LIGHT[what]}; print(sorted({heavy} & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
