"""``unhot report``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli.options import Json


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR ...", help="Folders that unhot audit wrote.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write; it must not exist yet.")],
    json: Json = False,
) -> None:
    """Draw one audit, or several side by side, as one HTML page that needs nothing else."""
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
