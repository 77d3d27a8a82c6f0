"""Records as tables of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from unhot.records.audit import AuditRecord, Measurement, Split, Subject
from unhot.records.model import ClassLabel
from unhot.report.texts import MEASURES, MeasureText

SUBJECTS: tuple[Subject, ...] = get_args(Subject)


@dataclass(frozen=True)
class Row:
    """One measure on one split, for every model.

    Attributes:
        name: As in ``audit.json``.
        title: In plain words, with the split where there are two.
        text: What it means; None in the second row of a measure.
        cells: By model; one that the record does not have is missing.
    """

    name: str
    split: Split | None
    title: str
    text: MeasureText | None
    cells: dict[Subject, Measurement]

    @property
    def absent_because(self) -> str | None:
        """The one reason for which all models lack the value, if it is one."""
        reasons = {m.absent_because for m in self.cells.values()}
        return next(iter(reasons)) if len(reasons) == 1 else None

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        better = next(iter(self.cells.values())).higher_is_better
        return {True: "higher is better", False: "lower is better", None: "neither way is better by itself"}[better]


def number(value: float, unit: str = "fraction") -> str:
    """Return a value as text."""
    digits = 1 if unit == "steps" else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def interval(m: Measurement) -> str:
    """Return the interval of a measurement as text; empty where there is none."""
    return "" if m.low is None or m.high is None else f"[{number(m.low, m.unit)}, {number(m.high, m.unit)}]"


def shown(measurement: Measurement | None) -> str:
    """Return a value and its interval as text; a dash where there is none."""
    if measurement is None or measurement.value is None:
        return "–"
    return f"{number(measurement.value, measurement.unit)} {interval(measurement)}"


def rows(record: AuditRecord) -> list[Row]:
    """Return one row for each measure and split, in the order of the page; test images come before train images."""
    table: dict[str, dict[Split | None, dict[Subject, Measurement]]] = {}
    for m in record.measurements:
        table.setdefault(m.name, {}).setdefault(m.split, {})[m.subject] = m
    places = {name: i for i, name in enumerate(MEASURES)}
    found = []
    for name in sorted(table, key=lambda n: places.get(n, len(places))):
        text = MEASURES.get(name) or MeasureText(
            "Attacks", name, "Not one of unhot's own measures.", "", "its author's"
        )
        splits = sorted(table[name], key=lambda s: s or "")
        for i, split in enumerate(splits):
            title = f"{text.title}, {split} images" if len(splits) > 1 else text.title
            found.append(Row(name, split, title, None if i else text, table[name][split]))
    return found


def audit_rows(record: AuditRecord) -> list[list[str]]:
    """Return one row for each measure and split: its name, then its value for each subject."""
    table: dict[str, dict[str, Measurement]] = {}
    for m in record.measurements:
        table.setdefault(f"{m.name} ({m.split})" if m.split else m.name, {})[m.subject] = m
    return [[name, *(shown(row.get(s)) for s in SUBJECTS)] for name, row in table.items()]


def class_names(classes: Iterable[ClassLabel]) -> str:
    """Name classes with their indices: 'cat (class 3), class 5'."""
    return ", ".join(f"class {c.index}" if c.name == str(c.index) else f"{c.name} (class {c.index})" for c in classes)
