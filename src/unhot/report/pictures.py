"""The pictures of an audit: all of them, in the order of the page."""

from __future__ import annotations

from unhot.records.audit import AuditRecord
from unhot.report.classes import confusion, per_class
from unhot.report.curves import few_shot, layers, relearning, roc
from unhot.report.feature_map import feature_map
from unhot.report.figures import Picture
from unhot.report.svg import drawing

DRAWERS = (per_class, confusion, layers, feature_map, relearning, few_shot, roc)


def draw(record: AuditRecord) -> list[Picture]:
    """Draw every picture that a record has the data for."""
    with drawing():
        return [p for make in DRAWERS if (p := make(record)) is not None]
