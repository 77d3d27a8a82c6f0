"""``unhot report``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli.options import Json
from unhot.errors import InputError


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
    for folder in folders:
        _check_audit(folder)
    audits = load(folders)
    write_atomic(out, render(audits).encode())
    if json:
        say(jsonlib.dumps({"out": str(out), "audits": len(audits)}))
        return
    for audit in audits:
        verdict = audit.record.verdict
        say(f"{audit.name}: {verdict.label}{f', for whoever holds the {verdict.holder}' if verdict.holder else ''}.")
    say(f"Wrote {out}.")


def _check_audit(folder: Path) -> None:
    """Refuse what is not the folder of an audit, and name the folders of audits that are there.

    Raises:
        InputError: It holds no audit.
    """
    from unhot.report.audited import RECORD

    if (folder / RECORD).exists():
        return
    near = sorted(p.parent for p in folder.glob(f"*/{RECORD}"))
    if folder.name == RECORD and folder.is_file():
        raise InputError(f"{folder} is the file of an audit. Give its folder, {folder.parent}.")
    offer = f" Give {' or '.join(map(str, near[:3]))}." if near else " Give the folder that unhot audit wrote."
    raise InputError(f"{folder / RECORD} cannot be read: there is no such file.{offer}")
