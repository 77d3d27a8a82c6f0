"""What the documentation is built of: the pages that are made of code, and the check of the built site."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
import typer

import unhot
from unhot.cli.app import app
from unhot.evaluation.catalogue import BUILTIN
from unhot.methods import catalogue
from unhot.models.cut import cut_classes
from unhot.records.results import Results

ROOT = Path(__file__).resolve().parents[2]
Page = Callable[[str], ModuleType]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Import a module of docs/pages, and forget it after the test: its name is a common one."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "pages"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(ROOT / "docs" / "pages") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def site(folder: Path, body: str) -> Path:
    """Write a site of two pages, of which one has a place to link to."""
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    (folder / "other.html").write_text('<html><body><h2 id="place">A place</h2></body></html>')
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<a href="other.html#place">there</a> <a href="https://example.org/">elsewhere, if somebody clicks</a>',
        '<img src="data:image/png;base64,AA==" alt=""><a href="#">here</a>',
    ],
)
def test_a_site_that_is_whole_has_no_problems(page: Page, tmp_path: Path, body: str) -> None:
    assert page("check").problems(site(tmp_path, body)) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "index.html fetches https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "index.html fetches //fonts.example/x.css"),
        ('<a href="gone.html">gone</a>', "index.html links to gone.html, which is not there"),
        ('<a href="other.html#gone">gone</a>', "index.html links to other.html#gone, a place that is not there"),
        ('<img src="gone.svg" alt="A picture">', "index.html links to gone.svg, which is not there"),
        ('<img src="data:image/png;base64,AA==">', "index.html shows data:image/png;base64,AA== without words (alt)"),
    ],
)
def test_what_is_wrong_with_a_site_is_named(page: Page, tmp_path: Path, body: str, problem: str) -> None:
    assert page("check").problems(site(tmp_path, body)) == [problem]


def test_a_style_sheet_that_fetches_from_elsewhere_is_named(page: Page, tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text("body { background: url('https://example.org/x.png') }")
    assert page("check").problems(tmp_path) == ["x.css fetches https://example.org/x.png"]


def test_the_page_of_the_command_line_has_every_command_and_option(page: Page) -> None:
    text = page("commands").page()
    group = typer.main.get_command(app)
    commands = {f"unhot {name}": found for name, found in group.commands.items()}
    commands |= {f"unhot guard {name}": found for name, found in group.commands["guard"].commands.items()}
    for name, command in commands.items():
        section = text.split(f"# `{name}`\n", 1)[1].split("\n## ")[0]
        options = [o for p in command.params for o in p.opts if o.startswith("-")]
        assert [o for o in options if o not in section] == [], name


def test_the_page_of_python_has_every_public_name(page: Page) -> None:
    text = page("api").page()
    assert [name for name in unhot.__all__ if f"::: unhot.{name}\n" not in text] == []


def test_a_committed_record_fits_the_schema_that_is_published(page: Page) -> None:
    schemas = {name: json.loads(text) for name, text in page("records").schemas().items()}
    read = Results.read(ROOT / "benchmarks" / "records" / "bench-budget.json")  # names of older labels are renewed
    record = json.loads(read.to_json())
    jsonschema.validate(record, schemas["results"])
    with pytest.raises(jsonschema.ValidationError, match="shots"):
        jsonschema.validate(record | {"rows": [record["rows"][0] | {"shots": "many"}]}, schemas["results"])


def test_every_field_that_a_docstring_describes_is_described_in_its_schema(page: Page) -> None:
    audit = json.loads(page("records").schemas()["audit"])
    assert audit["$defs"]["Measurement"]["properties"]["absent_because"]["description"].startswith("Why there is no")
    text = page("records").page()
    assert "## AuditRecord" in text
    assert "| `runs` | array of number |" in text
    assert ":class:`" not in text


def test_every_measure_is_on_its_page_with_the_values_of_an_audit(page: Page, tmp_path: Path, original, digits) -> None:
    masked = cut_classes(original.copy(), [original.label(3)], "mask")
    audit = unhot.audit(original=original, unlearned=masked, classes=[3], test=digits.test_images, quick=True)
    audit.save(tmp_path / "hidden")
    text = page("measures").page(tmp_path)
    assert [m for m in BUILTIN if f"`{m}`: " not in text] == []
    value = audit["retain_accuracy"].value
    assert f"unlearned {value:.3f} [" in text
    assert ":math:" not in text


def test_the_page_of_the_methods_has_every_setting_with_its_meaning(page: Page) -> None:
    text = page("methods").page()
    for name in catalogue:
        section = text.split(f"\n## {name} {{#", 1)[1].split("\n## ")[0]
        settings = catalogue.get(name).model_fields
        assert [s for s in settings if f"\n| `{s}` | " not in section] == [], name
        assert [line for line in section.splitlines() if line.startswith("| `") and line.endswith("|  |")] == [], name
