"""``unhot log``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.failure import UNMET
from unhot.errors import shortened

if TYPE_CHECKING:
    from unhot.deletion.ledger import Comparison


def log(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Bundle.")],
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """List the deletion requests carried out on a model.

    The list says what was forgotten, when, why, how, and at what cost. Each line is compared with its record, where
    that lies in a folder beside the model or beside the folder of its request. Exit code 3 if one does not agree.
    """
    from unhot.cli.output import complain, note, say, table
    from unhot.deletion.ledger import changed_between, compared_with, read_ledger, records_beside
    from unhot.deletion.weights_file import BundleFiles
    from unhot.records.ledger import added

    ledger, now = read_ledger(model), BundleFiles.read(model).weights_sha256
    in_force, cost = ledger.in_force, added([line.drop for line in ledger.in_force])
    changed = changed_between(ledger, now)
    compared = compared_with(records_beside(model), ledger)
    pairs = zip(ledger.lines, compared, strict=True)
    wrong = [(i, line, found) for i, (line, found) in enumerate(pairs, 1) if found.changed]
    if json:
        lines = [line.model_dump(mode="json") for line in ledger.lines]
        said = {"in_force": [line.id for line in in_force], "drop": cost, "without_record": changed}
        differ = [{"line": i, "record": str(found.record), "fields": found.changed} for i, _, found in wrong]
        say(jsonlib.dumps({"lines": lines} | said | {"not_as_recorded": differ}))
        raise typer.Exit(UNMET if wrong else 0)
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
            _state(found),
            "–" if line.drop is None else f"{line.drop:.3f}",
        ]
        for line, found in zip(ledger.lines, compared, strict=True)
    ]
    table(f"Requests on {model}", ["request", "when (UTC)", "forgot", "by", "why", "record", "drop"], rows, text=6)
    sum_of = "not measured for each" if cost is None else f"{cost:.3f} of the accuracy on retained classes"
    say(f"In force: {', '.join(line.id for line in in_force) or 'none'}. What they cost, added up: {sum_of}.")
    for where in changed:
        note(f"Note: the model was changed {where} without a record. Certify every request to leave no gap.")
    for i, line, found in wrong:
        complain(
            f"Line {i} ({line.id}) does not agree with its record: {shortened(map(repr, found.changed))} is not what "
            f"{found.record} says. See which of the two was changed: unhot verify {found.record} --key PUB --model "
            f"{model}."
        )
    raise typer.Exit(UNMET if wrong else 0)


def _state(found: Comparison) -> str:
    """Say how a line compares with its record."""
    if found.changed:
        return "does not agree"
    return "agrees" if found.record else "not here"
