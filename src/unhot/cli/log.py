"""``unhot log``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli import options as opt


def log(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle.")],
    json: opt.Json = False,
) -> None:
    """List the deletion requests carried out on a model: what was forgotten, when, why, how, and at what cost."""
    from unhot.cli.output import note, say, table
    from unhot.deletion.ledger import changed_between, read_ledger
    from unhot.deletion.weights_file import BundleFiles
    from unhot.records.ledger import added

    ledger, now = read_ledger(model), BundleFiles.read(model).weights_sha256
    in_force, cost = ledger.in_force, added([line.drop for line in ledger.in_force])
    changed = changed_between(ledger, now)
    if json:
        lines = [line.model_dump(mode="json") for line in ledger.lines]
        said = {"in_force": [line.id for line in in_force], "drop": cost, "without_record": changed}
        say(jsonlib.dumps({"lines": lines} | said))
        return
    if not ledger.lines:
        say(f"{model} has no certified requests.")
        return
    rows = [
        [
            line.id,
            f"{line.at:%Y-%m-%d %H:%M}",
            ("undone: " if line.action == "revert" else "") + ", ".join(c.name for c in line.classes),
            line.by,
            line.reason,
            "–" if line.drop is None else f"{line.drop:.3f}",
        ]
        for line in ledger.lines
    ]
    table(f"Requests on {model}", ["request", "when (UTC)", "forgot", "by", "why", "drop"], rows, text=5)
    sum_of = "not measured for each" if cost is None else f"{cost:.3f} of the accuracy on retained classes"
    say(f"In force: {', '.join(line.id for line in in_force) or 'none'}. What they cost, added up: {sum_of}.")
    for where in changed:
        note(f"Note: the model was changed {where} without a record. Certify every request to leave no gap.")
