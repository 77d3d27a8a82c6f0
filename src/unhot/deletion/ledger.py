"""The ledger beside a model: reading it, and taking requests out of it again."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unhot.deletion.statement import ENVELOPE, RECORD, digest_of
from unhot.errors import DataError, InputError, shortened
from unhot.reading import read_text
from unhot.records.deletion import DeletionRecord
from unhot.records.ledger import LEDGER, Ledger, Line
from unhot.records.model import ClassLabel


def read_ledger(folder: Path) -> Ledger:
    """Read the ledger of a model; a bundle that has none, or a file of weights, has no lines.

    Raises:
        InputError: It was changed.
    """
    path = folder / LEDGER
    return Ledger.parse(read_text(path), str(path)) if path.exists() else Ledger()


def line_of(record: DeletionRecord) -> Line:
    """Return the line of a record."""
    return Line(
        action="forget",
        id=record.request.id,
        at=record.certified,
        classes=record.classes,
        by=record.run.method,
        reason=record.request.reason,
        drop=record.place.drop,
        record_sha256=digest_of(record),
        before_sha256=record.original_sha256,
        after_sha256=record.result_sha256,
        previous=record.place.ledger_sha256,
    )


def changed_in(line: Line, record: DeletionRecord) -> list[str]:
    """Return the fields of a line that names a record, and that are not as its record says.

    Args:
        line: The line of the request, or one that undoes it or carries it out again; when that was, and after which
            line, the record does not say.
        record: What ``unhot certify`` signed.
    """
    told = line_of(record)
    if line.action == "revert":
        told = _reversed(told)
    fields = Line.model_fields.keys() - ({"at", "previous"} if line.action == "revert" else {"previous"})
    return sorted(name for name in fields if getattr(line, name) != getattr(told, name))


@dataclass(frozen=True)
class Comparison:
    """A line of a ledger beside its record.

    Attributes:
        record: The folder of the record; None if it was not found.
        changed: The fields of the line that are not as the record says.
    """

    record: Path | None
    changed: tuple[str, ...] = ()


def records_beside(model: Path) -> dict[Path, DeletionRecord]:
    """Return the deletion records in folders beside a model, or beside the folder of its request, by their folders.

    A record that cannot be read is left out; no signature is checked.
    """
    home, found = model.absolute().parent, {}
    for envelope in sorted((*home.glob(f"*/{ENVELOPE}"), *home.parent.glob(f"*/*/{ENVELOPE}"))):
        with suppress(InputError, OSError):
            found[envelope.parent] = DeletionRecord.read(envelope.parent / RECORD)
    return found


def compared_with(records: Mapping[Path, DeletionRecord], ledger: Ledger) -> list[Comparison]:
    """Compare each line of a ledger with its record: the one that it names or, if none does that, of the same result.

    Args:
        records: Records by their folders.
        ledger: The ledger.
    """
    by_digest = {digest_of(record): folder for folder, record in records.items()}
    named = {by_digest.get(line.record_sha256) for line in ledger.lines}
    by_result = {record.result_sha256: folder for folder, record in records.items() if folder not in named}
    found = []
    for line in ledger.lines:
        after = line.before_sha256 if line.action == "revert" else line.after_sha256
        folder = by_digest.get(line.record_sha256) or by_result.get(after)
        changed = () if folder is None else tuple(changed_in(line, records[folder]))
        found.append(Comparison(folder, changed))
    return found


def changed_between(ledger: Ledger, now: str) -> list[str]:
    """Say between which lines of a ledger the weights were changed without one.

    Args:
        ledger: The ledger of a model.
        now: Digest of the model's weights.
    """
    found = []
    for i, line in enumerate(ledger.lines):
        after = ledger.lines[i + 1] if i + 1 < len(ledger.lines) else None
        if line.after_sha256 != (now if after is None else after.before_sha256):
            found.append(f"after {line.id}" if after is None else f"between {line.id} and {after.id}")
    return found


def check_not_gone(ledger: Ledger, gone: Sequence[ClassLabel]) -> None:
    """Answer a request for classes that a request of the ledger made the model forget.

    Args:
        ledger: The ledger of the model.
        gone: The classes of the request that the model has forgotten.

    Raises:
        DataError: With the requests that they were forgotten on.
    """
    if lines := ledger.of_classes(gone):
        when = " and ".join(f"{line.id} of {line.at:%Y-%m-%d}, by {line.by}" for line in lines)
        raise DataError(
            f"The model has forgotten {shortened(c.name for c in gone)} already: on request {when}. Answer the request "
            "with that record, and leave the class out."
        )


def repeated(ledger: Ledger, lines: tuple[Line, ...]) -> Ledger:
    """Return a ledger in which requests are in force that were made of another copy of its model."""
    for line in lines:
        ledger = ledger.with_line(line.model_copy(update={"previous": ledger.last and ledger.last.sha256}))
    return ledger


def undone(ledger: Ledger, before: str, after: str) -> Ledger:
    """Return a ledger with a line for each request that is undone, the last request first.

    Args:
        ledger: The ledger of the model.
        before: Digest of the weights to which the model is taken back.
        after: Digest of its weights.
    """
    now, at = datetime.datetime.now(datetime.UTC).replace(microsecond=0), after
    for line in reversed(ledger.in_force):
        if at == before or line.after_sha256 != at:
            break
        at = line.before_sha256
        said = {"at": now, "previous": ledger.last and ledger.last.sha256}
        ledger = ledger.with_line(_reversed(line).model_copy(update=said))
    return ledger


def _reversed(line: Line) -> Line:
    ends = {"before_sha256": line.after_sha256, "after_sha256": line.before_sha256}
    return line.model_copy(update=ends | {"action": "revert", "drop": None})
