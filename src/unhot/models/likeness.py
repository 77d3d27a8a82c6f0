"""How like the weights of one model are to those of another, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unhot.models.classifier import Classifier

FEWEST = 100  # numbers of a tensor; the correlation of fewer says little
SAME = 0.9999  # correlation of tensors that differ in a few numbers, or by a factor


def likeness(model: Classifier, other: Classifier) -> list[tuple[int, float]]:
    """Compare each tensor of weights of a model with those of the same shape of another model.

    Only tensors of two or more dimensions and at least :data:`FEWEST` numbers are compared, and no constant ones.

    Returns:
        For each tensor of the model that can be compared how many numbers it holds, and its correlation with the tensor
        of the other model that is most like it.
    """
    theirs: dict[tuple[int, ...], list[Tensor]] = {}
    for shape, weight in _standard(other):
        theirs.setdefault(shape, []).append(weight)
    stacked = {shape: torch.stack(weights) for shape, weights in theirs.items()}
    return [(len(w), float((stacked[shape] @ w).max())) for shape, w in _standard(model) if shape in stacked]


def mean_likeness(found: list[tuple[int, float]]) -> float:
    """Return the mean of correlations, weighted by the numbers of their tensors; 0 if there are none."""
    return sum(n * c for n, c in found) / max(1, sum(n for n, _ in found))


@torch.no_grad()
def _standard(model: Classifier) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Give the shape of each tensor with its numbers, of mean 0 and length 1."""
    for weight in model.module.parameters():
        if weight.ndim > 1 and weight.numel() >= FEWEST and weight.is_floating_point():
            flat = weight.detach().cpu().float().flatten()
            if (flat != flat[0]).any():
                yield tuple(weight.shape), normalize(flat - flat.mean(), dim=0)
