r"""Likeness: how far the features of some images are from those of others.

Source: the energy distance is that of Székely, Rizzo: Energy statistics, J. Stat. Plan. Inference 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def energy(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`2 E|X-Y| - E|X-X'| - E|Y-Y'|`, unbiased, of x (N, d) and y (M, d); 0 in the mean if alike."""
    return 2 * torch.cdist(x, y).mean() - _within(x) - _within(y)


def energy_of_features(h: Tensor, others: Tensor) -> Tensor:
    """Return the energy distance of features h (N, d) from others (M, d), plus that of their directions.

    The first is in units of the root mean square length of the others.
    """
    unit = others.square().sum(1).mean().sqrt().clamp_min(torch.finfo(others.dtype).tiny)
    return energy(h / unit, others / unit) + energy(normalize(h), normalize(others))


def _within(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows of x (N, d)."""
    return torch.pdist(x).mean() if len(x) > 1 else x.new_zeros(())
