"""``requests.jsonl`` beside a model: one line for each request that made it forget something, or was undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal, Self

from pydantic import AwareDatetime

from unhot.errors import InputError
from unhot.records.base import Record, Sha256, Stored, canonical
from unhot.records.model import ClassLabel

LEDGER = "requests.jsonl"


class Line(Record):
    """One line.

    Attributes:
        action: A request that was certified, or one that was undone.
        id: The id of the request.
        at: When.
        classes: The classes of the request.
        by: The method.
        reason: The reason of the request.
        drop: Fall in accuracy on the retained classes that the request cost; None if it was not measured.
        record_sha256: SHA-256 of its ``record.json``.
        before_sha256: Digest of the weights before.
        after_sha256: Digest of the weights after.
        previous: SHA-256 of the line before, without its line feed; None in the first.
    """

    kind: Literal["ledger"] = "ledger"
    action: Literal["forget", "revert"]
    id: str
    at: AwareDatetime
    classes: tuple[ClassLabel, ...]
    by: str
    reason: str
    drop: float | None = None
    record_sha256: Sha256
    before_sha256: Sha256
    after_sha256: Sha256
    previous: Sha256 | None = None

    def to_json(self) -> str:
        """Return the canonical text."""
        return canonical(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """SHA-256 of the line."""
        return sha256(self.to_json().encode()).hexdigest()


class Ledger(Stored):
    """All lines, of which each follows from the one before."""

    lines: tuple[Line, ...] = ()

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read the text of the file.

        Args:
            text: One line for each request, each ended by a line feed.
            where: Names the file in errors.

        Raises:
            InputError: A line is not one, was changed, or does not follow from the one before.
        """
        lines: list[Line] = []
        for i, written in enumerate(text.splitlines(), 1):
            line = Line.parse(written, f"{where}, line {i}")
            before = lines[-1] if lines else None
            if line.previous != (before and before.sha256) or line.to_json() != written:
                raise InputError(
                    f"{where}: line {i} does not follow from the one before. The file was changed: restore it from a "
                    "copy of the model."
                )
            lines.append(line)
        if lines and not text.endswith("\n"):
            raise InputError(f"{where} does not end with a line feed. It was cut off: restore it from a copy.")
        return cls(lines=tuple(lines))

    def to_text(self) -> str:
        """Return the text of the file."""
        return "".join(f"{line.to_json()}\n" for line in self.lines)

    @property
    def last(self) -> Line | None:
        """The last line; None if there is none."""
        return self.lines[-1] if self.lines else None

    @property
    def in_force(self) -> tuple[Line, ...]:
        """The requests that were not undone, in order."""
        found: list[Line] = []
        for line in self.lines:
            if line.action == "revert":
                found = [other for other in found if other.record_sha256 != line.record_sha256]
            else:
                found.append(line)
        return tuple(found)

    def with_line(self, line: Line) -> Self:
        """Return the ledger with one more line."""
        return self.model_copy(update={"lines": (*self.lines, line)})

    def of_classes(self, labels: Iterable[ClassLabel]) -> list[Line]:
        """Return the requests in force that any of these classes was part of."""
        wanted = set(labels)
        return [line for line in self.in_force if wanted & set(line.classes)]


def added(drops: Sequence[float | None]) -> float | None:
    """Return the sum of what requests cost; None if that of one is not known."""
    known = [drop for drop in drops if drop is not None]
    return sum(known) if len(known) == len(drops) else None
