"""What the output says about images of the forgotten classes, and how well it is calibrated on the others.

Distributions are over the retained classes, the forgotten logits left out, so that cut and uncut models compare.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from unhot.evaluation.metric import Case
from unhot.evaluation.stats import Estimate, around, mean
from unhot.evaluation.view import View

BINS = 15


def output_js_to_retrained(case: Case) -> Estimate:
    """Return the mean Jensen-Shannon divergence from a retrained model's output on forgotten images; 0 to ln 2 nats."""
    own = _retained(case.view)
    found = [js(own, _retained(r)) for r in case.references()]
    return mean(torch.stack(found).mean(0), 0.0, math.log(2))


def activation_distance_to_retrained(case: Case) -> Estimate:
    """Return the mean Euclidean distance from a retrained model's probabilities on forgotten images; 0 to sqrt 2.

    Source: Golatkar, Achille, Soatto: Forgetting outside the box, ECCV 2020; over the retained classes only.
    """
    own = _retained(case.view).exp()
    found = [(own - _retained(r).exp()).norm(dim=1) for r in case.references()]
    return mean(torch.stack(found).mean(0), 0.0, math.sqrt(2))


def confusion_distance_to_retrained(case: Case) -> Estimate:
    """Return the total variation distance between the predictions of two models for forgotten images; 0 to 1.

    The interval is that of 20 bootstrap samples of the images.
    """
    mine = _retained(case.view).argmax(1)
    theirs = [_retained(r).argmax(1) for r in case.references()]
    classes, n = case.view.logits.shape[1], len(mine)
    generator = torch.Generator().manual_seed(0)

    def distance(index: Tensor) -> float:
        own = torch.bincount(mine[index], minlength=classes) / len(index)
        others = [torch.bincount(t[index], minlength=classes) / len(index) for t in theirs]
        return float(sum(0.5 * (own - o).abs().sum() for o in others) / len(others))

    value = distance(torch.arange(n))
    tries = [distance(torch.randint(n, (n,), generator=generator)) for _ in range(20)]
    return around(value, tries, n)


def calibration_error(case: Case) -> Estimate:
    """Return the expected calibration error on retained images, 15 equal bins of confidence, as deployed.

    The interval is that of 20 bootstrap samples of the images.

    Source: Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, ICML 2017, equation 3.
    """
    kept = ~case.view.is_forget
    confidence, right = case.view.logits[kept].softmax(1).amax(1), case.view.correct[kept]
    generator, n = torch.Generator().manual_seed(0), int(kept.sum())
    value = ece(confidence, right)
    drawn = [torch.randint(n, (n,), generator=generator) for _ in range(20)]
    tries = [ece(confidence[i], right[i]) for i in drawn]
    return around(value, tries, n)


def ece(confidence: Tensor, right: Tensor) -> float:
    """Return the expected calibration error of confidences (N,) in 0..1 and hits, bool (N,)."""
    bins = (confidence * BINS).ceil().clamp(1, BINS).long() - 1
    gap = torch.zeros(BINS).index_add_(0, bins, right.float() - confidence.float())
    return float(gap.abs().sum() / len(confidence))


def js(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of each pair of rows of log-probabilities (N, K): (N,), nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)

    def kl(log_a: Tensor) -> Tensor:
        return (log_a.exp() * (log_a - log_m)).nan_to_num(nan=0.0).sum(1)  # 0 log 0 is 0

    return (0.5 * (kl(log_p) + kl(log_q))).clamp_min(0.0)


def _retained(view: View) -> Tensor:
    """Return log-probabilities over the retained classes of forgotten images, (N, K); those forgotten at -inf."""
    return log_softmax(view.masked.logits[view.is_forget], dim=1)
