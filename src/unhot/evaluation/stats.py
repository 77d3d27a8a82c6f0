"""Estimates with 95 % intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.stats import binomtest, norm
from torch import Tensor

LEVEL = 0.95


class Estimate(NamedTuple):
    """A value with its 95 % interval, from ``n`` images or runs."""

    value: float
    low: float
    high: float
    n: int


def proportion(hits: Tensor) -> Estimate:
    """Estimate a share, with the Wilson interval.

    Args:
        hits: bool (N,), N > 0.
    """
    n, k = len(hits), int(hits.sum())
    interval = binomtest(k, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


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
    z = float(norm.ppf((1 + LEVEL) / 2))
    value = (lost - gained) / n
    return Estimate(value, min(value, middle - z * spread), max(value, middle + z * spread), n)
