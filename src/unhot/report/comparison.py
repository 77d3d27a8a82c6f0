"""Several audits in one table: their unlearned models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from unhot.records.audit import Measurement, Subject, Verdict, VerdictLabel
from unhot.records.measure import Holder
from unhot.report.audited import Audited
from unhot.report.tables import SUBJECTS, Row, rows


@dataclass(frozen=True)
class Column:
    """A model in the table.

    Attributes:
        name: The name of the audit; empty where all audits share the model.
    """

    subject: Subject
    name: str
    audit: int


@dataclass(frozen=True)
class Comparison:
    """The table: columns, the unlearned models first, and for each measure its row and one cell a column.

    Attributes:
        verdicts: Rows of labels, one for each holder; None for models without such a verdict.
    """

    shared: bool
    columns: list[Column]
    verdicts: list[tuple[str, list[VerdictLabel | None]]]
    lines: list[tuple[Row, list[Measurement | None]]]


def compared(audits: Sequence[Audited]) -> Comparison:
    """Put the unlearned models of several audits side by side.

    The original, masked and retrained models stand there once, from the first audit, if all audits have the same of
    them, the same data and the same classes; else each audit has its own.
    """
    shared = len({_references(a) for a in audits}) == 1
    columns: list[Column] = []
    for subject in sorted(SUBJECTS, key=lambda s: s != "unlearned"):
        if subject == "unlearned" or not shared:
            columns += [Column(subject, a.name, i) for i, a in enumerate(audits)]
        else:
            columns.append(Column(subject, "", 0))
    tables = [{(r.measure.name, r.split): r for r in rows(a.record)} for a in audits]
    keys = dict.fromkeys(key for table in tables for key in table)
    lines = []
    for key in keys:
        row = next(t[key] for t in tables if key in t)
        cells = [tables[c.audit][key].cells.get(c.subject) if key in tables[c.audit] else None for c in columns]
        if any(m is not None and m.value is not None for m in cells):
            lines.append((row, cells))
    said = [audits[c.audit].record.verdict if c.subject == "unlearned" else None for c in columns]
    return Comparison(shared, columns, list(_verdicts(said)), lines)


def _verdicts(verdicts: Sequence[Verdict | None]) -> Iterator[tuple[str, list[VerdictLabel | None]]]:
    """Give the labels of files that knew no holders, if there are any, then those for each holder."""
    if any(v is not None and not v.holders for v in verdicts):
        yield "Verdict", [None if v is None or v.holders else v.label for v in verdicts]
    holders: tuple[Holder, ...] = get_args(Holder)
    for holder in holders:
        found = [None if v is None else v.holders.get(holder) for v in verdicts]
        if any(found):
            yield f"Verdict for whoever holds the {holder}", [None if c is None else c.label for c in found]


def _references(audit: Audited) -> tuple[object, ...]:
    """Return what determines the values of all models but the unlearned one."""
    inputs = audit.record.inputs
    data = tuple(sorted(inputs.data_sha256.items()))
    return inputs.original_sha256, inputs.retrained_sha256, data, audit.record.classes
