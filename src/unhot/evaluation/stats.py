"""Estimates with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score
from torch import Tensor

LEVEL = 0.95
Z = float(norm.ppf((1 + LEVEL) / 2))


class Estimate(NamedTuple):
    """A value with its 95 % interval, from ``n`` images or runs."""

    value: float
    low: float
    high: float
    n: int


def proportion(hits: Tensor, weights: Tensor | None = None) -> Estimate:
    """Estimate a share, with the Wilson interval.

    Args:
        hits: bool (N,), N > 0.
        weights: The weight of each, (N,), where they do not count alike; the interval is that of :func:`worth` images.

    Source: Wilson: Probable inference, the law of succession, and statistical inference, JASA 1927.
    """
    n = float(len(hits)) if weights is None else worth(weights)
    value = float(np.average(hits.double(), weights=weights))
    middle, spread = value + Z**2 / (2 * n), Z * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    low, high = ((middle + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
    return Estimate(value, min(value, max(0.0, low)), max(value, min(1.0, high)), len(hits))


def worth(weights: Tensor) -> float:
    """Return how many values of equal weight tell as much as these, by Kish's formula.

    Source: Kish: Survey sampling, 1965.
    """
    return float(weights.sum() ** 2 / weights.square().sum())


def paired_drop(before: Tensor, after: Tensor) -> Estimate:
    """Estimate how much a share falls between two measurements of the same images.

    The interval adds half an image to each of the two kinds of change, which keeps it honest when few images change.

    Args:
        before: bool (N,), N > 0.
        after: bool (N,).

    Source: Agresti, Min: Simple improved confidence intervals for comparing matched proportions, Stat. Med. 2005.
    """
    n = len(before)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    middle = (lost - gained) / (n + 2)
    spread = math.sqrt((lost + gained + 1) - (lost - gained) ** 2 / (n + 2)) / (n + 2)
    value = (lost - gained) / n
    low, high = max(-1.0, middle - Z * spread), min(1.0, middle + Z * spread)
    return Estimate(value, min(value, low), max(value, high), n)


def mean(values: Tensor | np.ndarray, low: float = -math.inf, high: float = math.inf) -> Estimate:
    """Estimate a mean, with Student's interval cut to the range of the quantity.

    Args:
        values: Floating (N,), N > 0; from a single value the interval is the whole range.
        low: The quantity's least possible value.
        high: The quantity's greatest possible value.
    """
    array = np.asarray(values, dtype=np.float64)
    n, value = len(array), min(high, max(low, float(array.mean())))
    if n == 1:
        return Estimate(value, max(low, value) if low == -math.inf else low, value if high == math.inf else high, 1)
    spread = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, max(low, value - spread), min(high, value + spread), n)


def averaged(found: Sequence[Estimate]) -> Estimate:
    """Average estimates of one kind, ends of intervals included; ``n`` is summed."""
    value, low, high, n = (sum(column) for column in zip(*found, strict=True))
    k = len(found)
    return Estimate(value / k, low / k, high / k, int(n))


def around(value: float, tries: Sequence[float], n: int) -> Estimate:
    """Make an estimate of a value and its values on bootstrap samples: the interval is the range of them all.

    Of 20 samples that holds about 90 % of what a further one would give.
    """
    return Estimate(value, min([value, *tries]), max([value, *tries]), n)


def area(members: np.ndarray, others: np.ndarray, weights: tuple[Tensor, Tensor] | None = None) -> Estimate:
    """Estimate the area under the ROC curve of a score, with Newcombe's interval (his method 5).

    The interval holds every area from which the one found is no more than z of that area's own standard errors away,
    by the variance of Hanley and McNeil for groups of equal size. So it has a width where members and others are wholly
    apart, too, where the intervals of Hanley and McNeil themselves and of DeLong shrink to a point.

    Args:
        members: Scores (M,) of what should score high.
        others: Scores (N,) of what should score low.
        weights: The weights of the members (M,) and of the others (N,), where they do not count alike.

    Source: Newcombe: Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2,
    Statistics in Medicine 2006.
    """
    truth, scores = np.r_[np.ones(len(members)), np.zeros(len(others))], np.r_[members, others]
    value = float(roc_auc_score(truth, scores, sample_weight=None if weights is None else np.concatenate(weights)))
    m, n = (len(members), len(others)) if weights is None else map(worth, weights)
    return Estimate(value, _least_area(value, m, n), 1 - _least_area(1 - value, m, n), len(truth))


def _least_area(value: float, m: float, n: float) -> float:
    """Return the lower end of the interval around an area found with groups of ``m`` and ``n``."""
    size = (m + n) / 2 - 1

    def beyond(a: float) -> float:
        variance = a * (1 - a) * (1 + size * (1 - a) / (2 - a) + size * a / (1 + a)) / (m * n)
        return value - a - Z * math.sqrt(variance)

    return float(brentq(beyond, 0.0, value * (1 - 1e-12))) if value > 0 else 0.0  # an area of 1 is itself a root
