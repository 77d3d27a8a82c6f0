"""check_metric(): the contract of every metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from unhot.evaluation.metric import Case, Compute, Finding
from unhot.evaluation.metrics import MetricEntry, catalogue
from unhot.testing.measures import measure_problems


def check_metric(metric: str | MetricEntry) -> None:
    """Check a metric against its declaration, a :class:`unhot.records.measure.Measure`.

    On a small problem its estimates must lie in their intervals and in the declared range, be the same when computed
    again, and have the declared values on the original, on models that never saw the class and on a damaged one. It
    must change no model, draw from no global generator, and raise only ``NotMeasurable`` where data is missing.

    Args:
        metric: Its entry, or its name if it is registered.

    Raises:
        AssertionError: One sentence for each thing that is wrong.
    """
    entry = catalogue.entry(metric) if isinstance(metric, str) else metric
    if problems := list(dict.fromkeys(_problems(entry))):
        name = entry.measure.name
        raise AssertionError(f"{name} breaks the contract of a metric:" + "".join(f"\n  - {p}" for p in problems))


def _problems(entry: MetricEntry) -> Iterator[str]:
    compute = entry.load()
    if not callable(compute):
        yield f"Its place names a {type(compute).__name__}. Name a function (case) -> Estimate."
        return
    name, take = entry.measure.name, cast(Compute, compute)

    def taken(case: Case) -> Finding:
        return Finding({name: take(case)})

    yield from measure_problems((entry.measure,), taken)
