"""Results: the data of all tables, in one file that is small enough to be committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from unhot.escaping import json_words
from unhot.records.audit import StoredLabel
from unhot.records.base import Count, Record, Seconds, Stored
from unhot.records.bench import Cell, CellRecord, FailureRecord, TimingRecord, Track
from unhot.records.choices import Holder
from unhot.records.environment import Environment

# measures and signals of every cell that did not fail
PROMISED = ("forget_accuracy", "retain_drop")
SIGNALS = frozenset({"probability_left", "drift_nats"})
SEQUENCE = frozenset({"forget_accuracy", "retain_accuracy", "retain_drop_masked", "worst_class_drop"})
DIGITS = 6  # decimals of a value; its interval is thousands of times wider


class CellRow(Stored):
    """One cell.

    Attributes:
        names: Names of the forgotten classes.
        values: The value of each measure for each subject on test images; absent ones are left out.
        error: Why there is no result; None if there is one.
        verdicts: The label for each holder; empty in rows of older versions, whose only label is of the features.
    """

    dataset: str
    arch: str
    arch_options: dict[str, JsonValue]
    model_seed: int
    classes: tuple[int, ...]
    names: tuple[str, ...] = ()
    in_sequence: bool
    shots: int | None
    seed: int
    method: str
    options: dict[str, JsonValue]
    track: Track
    error: str | None = None
    values: dict[str, dict[str, float]] = {}
    before_cut: dict[str, float] = {}
    signals: dict[str, float] = {}
    sequence: tuple[dict[str, float], ...] = ()
    verdict: StoredLabel | None = None
    verdicts: dict[Holder, StoredLabel] = {}
    steps: int | None = None
    seconds: float | None = None

    @model_validator(mode="after")
    def _holds_what_tables_read(self) -> Self:
        if self.error is None and not (
            all("unlearned" in self.values.get(name, {}) for name in PROMISED)
            and self.signals.keys() >= SIGNALS
            and len(self.sequence) == (len(self.classes) if self.in_sequence else 0)
            and all(after.keys() >= SEQUENCE for after in self.sequence)
        ):
            raise ValueError("a cell without an error needs its values, signals and, in a sequence, each request's")
        return self

    @classmethod
    def of(cls, record: CellRecord, track: Track, options: dict[str, JsonValue]) -> CellRow:
        """Return the data of a record that the tables need.

        Args:
            record: The record.
            track: The group of methods that it is compared with.
            options: The hyperparameters that the grid sets.
        """
        values: dict[str, dict[str, float]] = {}
        for m in record.measurements:
            if m.split == "test" and m.value is not None:
                values.setdefault(m.name, {})[m.subject] = round(m.value, DIGITS)
        return cls(
            **_identity(record.spec),
            names=tuple(c.name for c in record.names),
            options=options,
            track=track,
            values=values,
            before_cut=_rounded(record.before_cut),
            signals=_rounded(record.signals),
            sequence=tuple(_rounded(s) for s in record.sequence),
            verdict=record.verdict,
            verdicts=record.verdicts,
            steps=record.steps,
            seconds=round(record.seconds, 4),
        )

    @classmethod
    def of_failure(cls, failure: FailureRecord, cell: Cell, track: Track) -> CellRow:
        """Return the row of a cell that failed."""
        error = failure.error.partition("\n")[0]
        return cls(**_identity(cell), options=failure.options, track=track, error=error)

    @property
    def promised(self) -> bool:
        """Whether forget accuracy is at most .01 and the retained accuracy falls by at most .035."""
        if self.error is not None:
            return False
        return self.values["forget_accuracy"]["unlearned"] <= 0.01 and self.values["retain_drop"]["unlearned"] <= 0.035


class TimingRow(Stored):
    """How long a method takes on a quiet machine, for one net and number of images."""

    dataset: str
    arch: str
    method: str
    options: dict[str, JsonValue]
    shots: int | None
    floor_seconds: float = Field(gt=0)
    forget_seconds: float = Field(gt=0)
    steps: Count
    train_seconds: Seconds | None
    load: float
    environment: Environment

    @classmethod
    def of(cls, record: TimingRecord, options: dict[str, JsonValue]) -> TimingRow:
        """Return the data of a timing record that the tables need."""
        return cls(
            dataset=record.spec.original.dataset,
            arch=record.spec.original.arch,
            method=record.spec.method,
            options=options,
            shots=record.spec.shots,
            floor_seconds=round(record.floor_seconds, 5),
            forget_seconds=round(record.forget_seconds, 5),
            steps=record.steps,
            train_seconds=record.train_seconds,
            load=record.load,
            environment=record.environment,
        )


class Results(Record):
    """``results.json``: all cells of a grid."""

    kind: Literal["results"] = "results"
    name: str
    rows: tuple[CellRow, ...]
    timings: tuple[TimingRow, ...] = ()
    environments: tuple[Environment, ...]

    def to_json(self) -> str:
        """Return the file's text, one cell a line."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        head = {"schema_version": self.schema_version, "kind": self.kind, "name": self.name}
        parts = [json.dumps(head, ensure_ascii=False)[1:-1]]
        for name in ("environments", "timings", "rows"):
            lines = ",\n  ".join(json.dumps(r, ensure_ascii=False, allow_nan=False) for r in content.get(name, ()))
            parts.append(f'"{name}": [\n  {lines}\n ]')
        return json_words("{" + ",\n ".join(parts) + "}\n")


def merged(files: Iterator[Path] | list[Path]) -> Results:
    """Read several files as one."""
    read = [Results.read(f) for f in files]
    return Results(
        name=", ".join(r.name for r in read),
        rows=tuple(row for r in read for row in r.rows),
        timings=tuple(t for r in read for t in r.timings),
        environments=tuple(dict.fromkeys(e for r in read for e in r.environments)),
    )


def _identity(spec: Cell) -> dict[str, object]:
    return {
        "dataset": spec.original.dataset,
        "arch": spec.original.arch,
        "arch_options": spec.original.arch_options,
        "model_seed": spec.original.seed,
        "classes": spec.classes,
        "in_sequence": spec.in_sequence,
        "shots": spec.shots,
        "seed": spec.seed,
        "method": spec.method,
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in values.items()}
