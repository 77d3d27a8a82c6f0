"""Carrying requests out again, on a model from which they, and one before them, were undone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unhot.deletion.ledger import read_ledger
from unhot.deletion.remeasure import left_out_slow
from unhot.deletion.statement import digest_of
from unhot.deletion.verify import verify
from unhot.errors import DataError, InputError
from unhot.records.deletion import DeletionRecord
from unhot.records.forget import ForgetRecord
from unhot.records.request import Asked, Shared

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey


def read_records(model: Path, folders: Sequence[Path], key: SSlibKey) -> list[DeletionRecord]:
    """Read the records of requests that were undone on a model, in the order in which they were made.

    Args:
        model: The model that they are carried out on again.
        folders: What ``unhot certify`` wrote.
        key: The public key of who signed them.

    Raises:
        InputError: A record does not hold, is of another model, or its request is in force.
    """
    records, ledger = [], read_ledger(model)
    for folder in folders:
        found = verify(folder, key)
        if found.record is None or not found.holds:
            why = next(c.found for c in found.checks if c.failed)
            raise InputError(f"{folder} does not hold: {why} Give a record that unhot verify accepts.")
        digest = digest_of(found.record)
        name = found.record.request.id
        if all(line.record_sha256 != digest for line in ledger.lines):
            raise InputError(f"The ledger of {model} does not name {name}: it was never carried out on this model.")
        if any(line.record_sha256 == digest for line in ledger.in_force):
            raise InputError(f"{name} is in force on {model}: there is nothing to replay. Undo it first: unhot revert.")
        records.append(found.record)
    return sorted(records, key=lambda record: record.place.number)


def asked_again(
    record: DeletionRecord, samples: str, retain: str | None, guard: Path | None, retrained: Sequence[Path]
) -> Asked:
    """Return a request as it was carried out: the same method, settings, seed and bounds.

    Args:
        record: The record of the request.
        samples: Where its images are.
        retain: Where the images of other classes are, if it was carried out with such.
        guard: The stored statistics, likewise.
        retrained: The retrained models for the audit.

    Raises:
        InputError: It was carried out with images or statistics that are not given, or without such.
    """
    run = record.run
    for name, recorded, given in (("--retain", run.retain_sha256, retain), ("--guard", run.guard_sha256, guard)):
        if (recorded is None) != (given is None):
            was = "without" if recorded is None else "with"
            advice = "Leave it out." if recorded is None else f"Give it as {name}."
            raise InputError(f"{record.request.id} was carried out {was} what {name} names. {advice}")
    note = f"{record.request.note} Carried out again; the record before is {digest_of(record)}.".strip()
    return Asked.model_validate(
        record.request.model_dump()
        | {"note": note, "classes": [c.name for c in record.classes], "samples": samples, "seed": run.seed}
        | {"method": run.method, "options": run.hyperparameters, "retain": retain, "guard": guard, "force": True}
        | {"retrained": tuple(retrained), "require": tuple(bound.requirement for bound in record.bounds)}
    )


def shared_again(record: DeletionRecord, data: str, label_map: Path | None) -> Shared:
    """Return how the audit of a request was made."""
    evidence = record.evidence[0]
    return Shared(
        data=data, label_map=label_map, quick=left_out_slow(evidence), holder=evidence.verdict.holder or "features"
    )


def check_same(record: DeletionRecord, run: ForgetRecord) -> str | None:
    """Refuse a run that had other samples or statistics than that of a record.

    Returns:
        What to say of the retained images, if they are others: those of a class that is there again are among them.

    Raises:
        DataError: The samples or the statistics are others.
    """
    name, before = record.request.id, record.run
    if run.samples.sha256 != before.samples:
        raise DataError(f"The samples are not those that {name} was carried out with. Give the same ones.")
    if run.guard_sha256 != before.guard_sha256:
        raise DataError(f"The guard is not the one that {name} was carried out with. Give the same one.")
    if (run.retain and run.retain.sha256) == before.retain_sha256:
        return None
    now = run.retain.count if run.retain else 0
    return (
        f"{name} was carried out with {before.retain_images:,} retained images, of other digests than the {now:,} now."
    )
