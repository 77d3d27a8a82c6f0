"""Every measure of an audit, by name: of metrics and attacks, unhot's own and those of others."""

from __future__ import annotations

from collections.abc import Iterator

from unhot.errors import InputError
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.metrics import catalogue as metrics
from unhot.records.measure import Measure


def measures() -> dict[str, Measure]:
    """Return every measure that an audit takes; installed packages that add some are imported for it.

    Raises:
        InputError: Two have the same name, a metric's is not that of its entry, or a package cannot be imported.
    """
    found: dict[str, Measure] = {}
    for owner, measure in _declared():
        if measure.name in found:
            raise InputError(f"{owner} declares the measure {measure.name!r}, as something else does. Rename it.")
        found[measure.name] = measure
    return found


def _declared() -> Iterator[tuple[str, Measure]]:
    for name, metric in metrics.entries().items():
        if metric.measure.name != name:
            raise InputError(f"The metric {name!r} declares {metric.measure.name!r}. Give both the same name.")
        yield f"The metric {name!r}", metric.measure
    for name, attack in attacks.entries().items():
        yield from ((f"The attack {name!r}", m) for m in attack.measures)


BUILTIN = {
    m.name: m
    for m in (
        *(e.measure for e in metrics.builtin.values()),
        *(m for e in attacks.builtin.values() for m in e.measures),
    )
}
