"""Metric: a measure of one model on one split, with what is needed to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unhot.evaluation.stats import Estimate
from unhot.evaluation.view import View, Views
from unhot.record import Split, Subject


class Absent(Exception):  # noqa: N818
    """Raised by a metric that cannot be computed; the message is the reason."""


@dataclass(frozen=True)
class Case:
    """What a metric looks at: one model on one split, and all others beside it."""

    views: Views
    subject: Subject
    split: Split
    run: int = 0

    @property
    def view(self) -> View:
        """The model itself."""
        return self.views.of(self.subject, self.split, self.run)

    @property
    def original(self) -> View:
        """The original model on the same split."""
        return self.views.of("original", self.split)


@dataclass(frozen=True)
class Metric:
    """A measure.

    Attributes:
        name: As registered and reported.
        compute: Gives the estimate, or raises :class:`Absent`.
        higher_is_better: The direction, for whoever wants the class forgotten and the rest retained; None if neither.
        unit: Of the value.
        splits: On which splits it is computed.
    """

    name: str
    compute: Callable[[Case], Estimate]
    higher_is_better: bool | None
    unit: str = "fraction"
    splits: tuple[Split, ...] = ("test",)
