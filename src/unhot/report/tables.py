"""Records as tables of text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from unhot.evaluation.catalogue import BUILTIN
from unhot.records.audit import AuditRecord, Measurement, Split, Subject
from unhot.records.measure import Measure
from unhot.records.model import ClassLabel

SUBJECTS: tuple[Subject, ...] = get_args(Subject)


@dataclass(frozen=True)
class Row:
    """One measure on one split, for every model.

    Attributes:
        measure: What it is.
        first: Whether it is the first row of its measure, which is explained there.
        title: The title of the measure, with the split where there are two.
        cells: The measurements by model; one that the record does not have is missing.
    """

    measure: Measure
    split: Split | None
    first: bool
    title: str
    cells: dict[Subject, Measurement]

    @property
    def absent_because(self) -> str | None:
        """The one reason for which all models lack the value, if it is one."""
        reasons = {m.absent_because for m in self.cells.values()}
        return next(iter(reasons)) if len(reasons) == 1 else None


def number(value: float, unit: str = "fraction") -> str:
    """Return a value as text."""
    digits = 1 if unit == "steps" else 3
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def interval(m: Measurement) -> str:
    """Return the interval of a measurement as text; empty where there is none."""
    return "" if m.low is None or m.high is None else f"[{number(m.low, m.unit)}, {number(m.high, m.unit)}]"


def value_text(measurement: Measurement | None) -> str:
    """Return a value and its interval as text; a dash where there is none."""
    if measurement is None or measurement.value is None:
        return "–"
    return f"{number(measurement.value, measurement.unit)} {interval(measurement)}"


def declared(record: AuditRecord) -> dict[str, Measure]:
    """Return what each measure of a record is, by name, in the order of the page.

    An old record does not say it itself: unhot's own measures are known, of others no more than their values say.
    """
    if record.measures:
        return {m.name: m for m in record.measures}
    values = {m.name: m for m in record.measurements}
    return BUILTIN | {name: _unknown(m) for name, m in values.items() if name not in BUILTIN}


def _unknown(m: Measurement) -> Measure:
    return Measure.model_construct(
        name=m.name,
        title=m.name,
        group="Attacks",
        sentence="Not one of unhot's own measures.",
        unit=m.unit,
        higher_is_better=m.higher_is_better,
        source="its author's",
    )


def rows(record: AuditRecord) -> list[Row]:
    """Return one row for each measure and split, in the order of the page; test images come before train images."""
    table: dict[str, dict[Split | None, dict[Subject, Measurement]]] = {}
    for m in record.measurements:
        table.setdefault(m.name, {}).setdefault(m.split, {})[m.subject] = m
    found = []
    for name, measure in declared(record).items():
        splits = sorted(table.get(name, ()), key=lambda s: s or "")
        for i, split in enumerate(splits):
            title = f"{measure.title}, {split} images" if len(splits) > 1 else measure.title
            found.append(Row(measure, split, i == 0, title, table[name][split]))
    return found


def audit_rows(record: AuditRecord) -> list[list[str]]:
    """Return one row for each measure and split: its name, then its value for each subject."""
    return [
        [
            f"{r.measure.name} ({r.split})" if r.split else r.measure.name,
            *(value_text(r.cells.get(s)) for s in SUBJECTS),
        ]
        for r in rows(record)
    ]


def class_names(classes: Iterable[ClassLabel]) -> str:
    """Name classes with their indices: 'cat (class 3), class 5'."""
    return ", ".join(f"class {c.index}" if c.name == str(c.index) else f"{c.name} (class {c.index})" for c in classes)
