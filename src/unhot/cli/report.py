"""``unhot report``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli.options import Json


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR ...", help="Folders that unhot audit wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Output HTML file; it must not exist yet.")],
    json: Json = False,
) -> None:
    """Make one HTML page of one audit, or of several side by side."""
    from unhot.cli.output import say
    from unhot.files import check_new, write_atomic
    from unhot.report.page import load, render

    check_new(out)
    audits = load(folders)
    write_atomic(out, render(audits).encode())
    if json:
        say(jsonlib.dumps({"out": str(out), "audits": len(audits)}))
        return
    for audit in audits:
        say(f"{audit.name}: {audit.record.verdict.label}.")
    say(f"Wrote {out}.")
