"""Accuracy on forgotten and retained classes, and what was lost.

The worst class is reported because a mean hides damage to the neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.stats import Estimate, paired_drop, proportion


def forget_accuracy(case: Case) -> Estimate:
    """Return the share of images of the forgotten classes that the model, as deployed, assigns to their class."""
    return proportion(_some(case.view.correct[case.view.is_forget], "forgotten"))


def worst_forget_accuracy(case: Case) -> Estimate:
    """Return :func:`forget_accuracy` of the class that is recognised most, with the interval of that class alone."""
    view = case.view
    hits = [_some(view.correct[view.y == c], "forgotten") for c in case.views.columns]
    return max((proportion(h) for h in hits), key=lambda e: e.value)


def retain_accuracy(case: Case) -> Estimate:
    """Return the share of images of the other classes that the model, as deployed, assigns to their class."""
    return proportion(_some(case.view.correct[~case.view.is_forget], "retained"))


def retain_drop(case: Case) -> Estimate:
    """Return retain accuracy of the original minus that of the model, both as deployed; paired by image."""
    kept = ~case.view.is_forget
    return paired_drop(case.original.correct[kept], case.view.correct[kept])


def retain_drop_masked(case: Case) -> Estimate:
    """Return :func:`retain_drop` with the forgotten logits left out of the argmax of both models.

    Cutting the forgotten class out of the output alone already returns images that it had taken, so this, and not
    ``retain_drop``, is what a method costs.
    """
    kept = ~case.view.is_forget
    return paired_drop(case.original.masked.correct[kept], case.view.masked.correct[kept])


def worst_class_drop(case: Case) -> Estimate:
    """Return :func:`retain_drop_masked` of the retained class that lost most, with the interval of that class alone."""
    before, after, y = case.original.masked.correct, case.view.masked.correct, case.view.y
    classes = y[~case.view.is_forget].unique()
    return max((paired_drop(before[y == c], after[y == c]) for c in classes), key=lambda e: e.value)


def per_class(case: Case) -> dict[int, Estimate]:
    """Return the accuracy of each class, by column."""
    view = case.view
    return {int(c): proportion(view.correct[view.y == c]) for c in torch.unique(view.y)}


def _some(hits: Tensor, which: str) -> Tensor:
    if len(hits) == 0:
        raise NotMeasurable(f"no images of the {which} classes")
    return hits
