"""How much of a class a score recovers, at a bounded loss on the retained classes."""

from __future__ import annotations

import torch
from torch import Tensor

from unhot.evaluation.metric import Case, NotMeasurable


def safe_queries(case: Case) -> Tensor:
    """Return which queries are of retained classes and classified correctly among these, bool (N,)."""
    view = case.on("test")
    right = view.masked.correct & ~view.is_forget
    return right if case.learns_from == "train" else right[case.halves[1]]


def recovered(scores: Tensor, mine: Tensor, safe: Tensor, cost: float) -> Tensor:
    """Return the best recovery of a class at a bounded cost.

    Args:
        scores: (N, R), of N images in R tries; higher is more like the class.
        mine: Which images are of the class, bool (N,).
        safe: Which images would be lost if they were classified as the class, bool (N,).
        cost: Share of the safe images that may be lost.

    Returns:
        The share of the class that scores above the threshold of each try, (R,).

    Raises:
        NotMeasurable: No image is safe.
    """
    return found(scores, mine, safe, cost).float().mean(0)


def found(scores: Tensor, mine: Tensor, safe: Tensor, cost: float) -> Tensor:
    """Return which images of the class :func:`recovered` counts, bool (M, R).

    Raises:
        NotMeasurable: No image is safe.
    """
    if not safe.any():
        raise NotMeasurable("the model gets no retained image right, so nothing bounds the attack")
    allowed = int(cost * int(safe.sum()))
    threshold = scores[safe].topk(allowed + 1, dim=0).values[-1]
    return scores[mine] > threshold


def reweighted(scores: Tensor, mine: Tensor, safe: Tensor, cost: float, weights: Tensor) -> Tensor:
    """Return the weight of the images that :func:`recovered` would find, were some images worth more than others.

    Args:
        scores: (N, R).
        mine: bool (N,).
        safe: bool (N,), not all False.
        cost: Share of the safe images' weight that may be lost.
        weights: Positive, (S, N), of each image in S samples of a bootstrap.

    Returns:
        (S, R), at most the weight of all images of the class.
    """
    own, others = (weights[:, kind].T.contiguous() for kind in (mine, safe))
    allowed = cost * others.sum(0)
    # weights that are 1 on average lose as much within so many images, in all but impossible samples
    near = min(len(others), int(2 * cost * len(others)) + 50)
    weight = []
    for score, highest, index in zip(scores[mine].T, *(t.T for t in scores[safe].topk(near, dim=0)), strict=True):
        threshold = highest[(others[index].cumsum(0) <= allowed).sum(0).clamp_max(near - 1)]
        sure = score > threshold.max()
        open_ = (score > threshold.min()) & ~sure
        weight.append(sure.to(own) @ own + (own[open_] * (score[open_, None] > threshold)).sum(0))
    return torch.stack(weight, 1)
