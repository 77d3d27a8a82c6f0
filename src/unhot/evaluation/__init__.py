"""What is measured of a model that was made to forget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unhot.registry import Entry, Registry

if TYPE_CHECKING:
    from unhot.evaluation.metric import Metric

_ACCURACY = "unhot.evaluation.metrics.accuracy"

catalogue: Registry[Metric] = Registry(
    "metric",
    {
        "forget_accuracy": Entry(f"{_ACCURACY}:FORGET_ACCURACY", "accuracy on images of the forgotten classes"),
        "retain_accuracy": Entry(f"{_ACCURACY}:RETAIN_ACCURACY", "accuracy on images of all other classes"),
        "retain_drop": Entry(f"{_ACCURACY}:RETAIN_DROP", "retain accuracy of the original minus the model's"),
        "retain_drop_masked": Entry(
            f"{_ACCURACY}:RETAIN_DROP_MASKED", "the same with the forgotten logits left out of both argmaxes"
        ),
        "worst_class_drop": Entry(
            f"{_ACCURACY}:WORST_CLASS_DROP", "largest drop of any retained class, forgotten logits left out"
        ),
    },
)
