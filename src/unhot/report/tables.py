"""Records as tables of text."""

from __future__ import annotations

from typing import get_args

from unhot.record import AuditRecord, Measurement, Subject

SUBJECTS: tuple[Subject, ...] = get_args(Subject)


def shown(measurement: Measurement | None) -> str:
    """Return a value and its interval as text; a dash where there is none."""
    if measurement is None or measurement.value is None:
        return "–"
    digits = 3 if measurement.unit == "fraction" else 2
    value, low, high = (f"{v:.{digits}f}" for v in (measurement.value, measurement.low, measurement.high))
    return f"{value} [{low}, {high}]"


def audit_rows(record: AuditRecord) -> list[list[str]]:
    """Return one row for each measure and split: its name, then its value for each subject."""
    table: dict[str, dict[str, Measurement]] = {}
    for m in record.measurements:
        table.setdefault(f"{m.name} ({m.split})" if m.split else m.name, {})[m.subject] = m
    return [[name, *(shown(row.get(s)) for s in SUBJECTS)] for name, row in table.items()]
