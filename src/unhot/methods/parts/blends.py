"""Blends: activations that lie between those of two images, of which a net trained on few images is to keep more."""

from __future__ import annotations

import torch
from torch import Tensor


def mixed(a: Tensor, b: Tensor, generator: torch.Generator, most: float = 1.0) -> Tensor:
    """Return weighted means of a and b, (N, ...) both, in which b has a random weight of at most ``most``.

    Source: Verma, Lamb, Beckham, Najafi, Mitliagkas, Lopez-Paz, Bengio: Manifold mixup, ICML 2019.
    """
    weight = most * torch.rand(len(a), *[1] * (a.ndim - 1), generator=generator)
    return torch.lerp(a, b, weight.to(a))


def patched(a: Tensor, b: Tensor, generator: torch.Generator, most: float = 1.0) -> Tensor:
    """Return a (N, C, H, W) with a random rectangle of b in each, of a random area of at most a share of ``most``.

    Activations that are no maps are mixed.

    Source: Yun, Han, Oh, Chun, Choe, Yoo: CutMix, ICCV 2019; here the rectangles lie wholly within the map.
    """
    if a.ndim != 4:
        return mixed(a, b, generator, most)
    side = (most * torch.rand(len(a), generator=generator)).sqrt()
    rows, columns = (_runs(side, n, generator) for n in a.shape[2:])
    return torch.where((rows[:, None, :, None] & columns[:, None, None, :]).to(a.device), b, a)


def _runs(share: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a mask (N, size) with one run of True in each row, as long as the share of the size says."""
    length = (share * size).round()
    start = (torch.rand(len(share), generator=generator) * (size - length + 1)).floor()
    at = torch.arange(size)
    return (at >= start[:, None]) & (at < (start + length)[:, None])
