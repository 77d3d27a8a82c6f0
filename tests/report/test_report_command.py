"""``unhot report``: what it writes, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import unhot.cli.output  # noqa: F401  here, since rich draws random numbers when it is imported
from unhot.cli.report import report
from unhot.errors import InputError, UnhotError


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; return its exit code, what it printed and what it complained about."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(report)

    def call(*argv: str | Path) -> tuple[int, str, str]:
        try:
            code = app([str(a) for a in argv], standalone_mode=False) or 0
            complaint = ""
        except UnhotError as error:
            code, complaint = 2 if isinstance(error, InputError) else 1, str(error)
        return code, capsys.readouterr().out, complaint

    return call


def test_one_folder_becomes_a_page(run, example, tmp_path: Path) -> None:
    code, said, _ = run(example, "--out", tmp_path / "page.html")
    assert code == 0
    assert said.splitlines() == ["audit: short of a retrained model.", f"Wrote {tmp_path / 'page.html'}."]
    assert (tmp_path / "page.html").read_bytes() == (example / "report.html").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_it_is_said_for_whom_a_verdict_is(run, make, write, tmp_path: Path) -> None:
    code, said, _ = run(write(make(held=True), "one"), "--out", tmp_path / "page.html")
    assert code == 0
    assert said.startswith("one: short of a retrained model, for whoever holds the features.\n")


def test_several_folders_become_one_page(run, example, tmp_path: Path) -> None:
    code, said, _ = run(example, example, "--out", tmp_path / "page.html", "--json")
    assert code == 0
    assert json.loads(said) == {"out": str(tmp_path / "page.html"), "audits": 2}
    assert "2 unlearned models side by side" in (tmp_path / "page.html").read_text()


def test_a_file_that_exists_is_never_touched(run, example, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    code, _, complaint = run(example, "--out", tmp_path / "page.html")
    assert (code, complaint) == (2, f"{tmp_path / 'page.html'} exists. Choose another --out, or remove it first.")
    assert (tmp_path / "page.html").read_text() == "mine"


def test_a_place_that_is_not_there_is_refused(run, example, tmp_path: Path) -> None:
    code, _, complaint = run(example, "--out", tmp_path / "none" / "page.html")
    assert code == 2
    assert "none is not a folder" in complaint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read"),
        ("{", "is not valid JSON"),
        ('{"schema_version": 99}', "was written by a newer unhot"),
        ('{"schema_version": 1}', "is not a valid AuditRecord"),
        ("[]", "is not a valid AuditRecord"),
    ],
)
def test_a_folder_without_a_usable_audit_is_one_sentence(run, tmp_path: Path, content, expected: str) -> None:
    if content is not None:
        (tmp_path / "audit.json").write_text(content)
    code, _, complaint = run(tmp_path, "--out", tmp_path / "page.html")
    assert code == 2
    assert expected in complaint
    assert len(complaint.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()
