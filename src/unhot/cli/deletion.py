"""``unhot keys`` and ``unhot certify``: the record of a deletion request."""

from __future__ import annotations

import json as jsonlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.failure import UNMET
from unhot.records.choices import KeyKind

if TYPE_CHECKING:
    from unhot.records.deletion import DeletionRecord

DAY = ["%Y-%m-%d"]

Unlearned = Annotated[Path, typer.Argument(metavar="UNLEARNED", help="Bundle that unhot forget wrote.")]
Audits = Annotated[list[Path], typer.Argument(metavar="AUDIT ...", help="Folders of audits of this model.")]


def keys(
    out: opt.Out,
    kind: Annotated[
        KeyKind, typer.Option("--kind", help="Kind of the keys; model-signing, which signs folders, takes ecdsa only.")
    ] = "ed25519",
    json: opt.Json = False,
) -> None:
    """Make a pair of keys to sign deletion records with.

    unhot.key signs, and only you may read it; unhot.pub is for whoever checks records.
    """
    from unhot.cli.output import say
    from unhot.deletion.keys import PRIVATE, PUBLIC, make_keys
    from unhot.files import check_free

    check_free(out)
    key_id = make_keys(out, kind)
    if json:
        say(jsonlib.dumps({"key_id": key_id, "private": str(out / PRIVATE), "public": str(out / PUBLIC)}))
        return
    say(f"Made the key {key_id[:12]}. Keep {out / PRIVATE} to yourself, and give {out / PUBLIC} to who checks records.")


def certify(
    unlearned: Unlearned,
    audits: Audits,
    key: Annotated[Path, typer.Option("--key", help="Private key to sign with, from unhot keys or in PEM form.")],
    request: Annotated[str, typer.Option("--id", help="Name of the request, unique for the model.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, in your words. Name no person.")],
    out: opt.Out,
    legal_basis: Annotated[str, typer.Option("--legal-basis", help="The rule that it is based on.")] = "",
    approved_by: Annotated[str, typer.Option("--approved-by", help="The role of who approved it.")] = "",
    note: Annotated[
        str, typer.Option("--note", help="Anything else that the record is to say. [that of unhot forget]")
    ] = "",
    received: Annotated[datetime | None, typer.Option("--received", formats=DAY, help="Day of the request.")] = None,
    require: Annotated[
        list[str],
        typer.Option("--require", help="Bound that AUDIT is to meet, as for unhot audit. Exit code 3 if not met."),
    ] = [],  # noqa: B006
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Make a signed record of a deletion request.

    It says what was asked, done and measured, and what is left to dispose of.
    """
    from pydantic import ValidationError

    from unhot.cli.output import complain, say
    from unhot.deletion.certify import Made
    from unhot.deletion.certify import certify as make
    from unhot.deletion.folder_signature import folder_signer
    from unhot.deletion.keys import read_private
    from unhot.errors import OptionError, invalid_values
    from unhot.evaluation.requirement import Requirement
    from unhot.records.deletion import Request

    if received is not None and received > datetime.now():
        raise OptionError(f"--received {received.date()} is after today. Give the day on which the request came in.")
    made = Made.read(unlearned, audits)
    try:
        asked = Request(
            id=request,
            reason=reason,
            legal_basis=legal_basis,
            approved_by=approved_by,
            note=note or made.run.note,
            received=received and received.date(),
        )
    except ValidationError as error:
        raise OptionError(f"The request cannot be recorded: {invalid_values(error)[0]}.") from error
    bounds = [Requirement.parse(text) for text in require]
    signer = read_private(key)
    record = make(made, asked, signer, out, bounds, folder_signer(key, signer))
    if json:
        say(record.to_json())
    else:
        _say_certified(record, out)
    for bound in record.unmet:
        complain(f"Not met: {bound.unmet}.")
    raise typer.Exit(UNMET if record.unmet else 0)


def _say_certified(record: DeletionRecord, out: Path) -> None:
    from unhot.cli.output import say
    from unhot.deletion.certify import PAGE
    from unhot.deletion.folder_signature import SIGNATURE
    from unhot.report.deletion import bounds_met
    from unhot.report.sentences import headline

    verdict = record.evidence[0].verdict
    named = ", ".join(c.name for c in record.classes)
    bounds = f" {bounds_met(record)}" if record.bounds else ""
    signed = f" {SIGNATURE} in it signs the folder of the model." if record.folder_signature_sha256 else ""
    say(
        f"Certified {record.request.id}: forgot {named}. {headline(verdict)}: {verdict.label}.{bounds} Wrote {out}; to "
        f"print: {out / PAGE}.{signed} {len(record.remaining)} things are left to dispose of, the model before among "
        "them."
    )
