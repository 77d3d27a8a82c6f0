"""Carrying out a request with the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from unhot.cli import main
from unhot.deletion.certify import with_page
from unhot.deletion.keys import read_private
from unhot.deletion.statement import signed, statement
from unhot.records.deletion import DeletionRecord
from unhot.report.deletion import render

NOTES = "default::unhot.errors.UnhotWarning"  # a model of few epochs is not sure of all samples


class Carried(NamedTuple):
    """The folders of a request."""

    original: Path
    unlearned: Path
    audit: Path
    keys: Path
    record: Path

    @property
    def public(self) -> Path:
        return self.keys / "unhot.pub"

    @property
    def private(self) -> Path:
        return self.keys / "unhot.key"


def call(*argv: object) -> int:
    """Run a command in this process."""
    return main([str(a) for a in argv])


def forget(model: Path, digit: int, out: Path) -> None:
    """Let a model forget a digit."""
    assert call("forget", model, "--class", digit, "--samples", "digits", "--force", "--out", out) == 0


def forgot(model: Path, digit: int, out: Path) -> Path:
    """Let a model forget a digit, and audit that; returns the folder of the audit."""
    forget(model, digit, out)
    audit = out.with_name(f"{out.name}-audit")
    quick = ("--data", "digits", "--quick")
    assert call("audit", "--original", model, "--unlearned", out, "--class", digit, *quick, "--out", audit) == 0
    return audit


def certified(made: Carried, name: str, out: Path, *more: object) -> int:
    """Certify a request under a name."""
    said = ("--key", made.private, "--id", name, "--reason", "consent was withdrawn", *more)
    return call("certify", made.unlearned, made.audit, *said, "--out", out)


def signed_again(made: Carried, record: DeletionRecord) -> None:
    """Sign a record that was changed, as whoever holds the key could."""
    written = with_page(record.model_copy(update={"page_sha256": None}))
    texts = (written.to_json(), render(written), signed(statement(written), read_private(made.private)))
    for name, text in zip(("record.json", "record.html", "record.dsse.json"), texts, strict=True):
        (made.record / name).write_text(text)
