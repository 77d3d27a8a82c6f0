r"""Likeness: how far the features of some images are from those of others.

Source: the energy distance is that of Székely, Rizzo: Energy statistics, J. Stat. Plan. Inference 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

TINY = 1e-6  # least count of a class, and least variance


def energy(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`2 E|X-Y| - E|X-X'| - E|Y-Y'|`, unbiased, of x (N, d) and y (M, d); 0 in the mean if alike."""
    return 2 * torch.cdist(x, y).mean() - _within(x) - _within(y)


def energy_of_features(h: Tensor, others: Tensor) -> Tensor:
    """Return the energy distance of features h (N, d) from others (M, d), plus that of their directions.

    The first is in units of the root mean square length of the others.
    """
    unit = others.square().sum(1).mean().sqrt().clamp_min(torch.finfo(others.dtype).tiny)
    return energy(h / unit, others / unit) + energy(normalize(h), normalize(others))


class Whitening:
    """Features in units of their spread within a class, while a net is trained.

    A direction in which the images of a class hardly differ adds nothing to a distance, but whoever divides by its
    spread reads there what training left. The sums fade, so that they are of the features as they are now.
    """

    FADING = 0.98  # share of the sums that is left after a batch
    REFRESH = 10  # batches between two factorisations
    RIDGE = 1e-3  # of the mean variance

    def __init__(self) -> None:
        self._batches, self._counts, self._sums, self._squares = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    @torch.no_grad()
    def add(self, h: Tensor, classes: Tensor) -> None:
        """Add features (N, d) of images of classes (N, K), one-hot."""
        counts, sums, squares = (self.FADING * x.to(h) for x in (self._counts, self._sums, self._squares))
        self._counts, self._sums = counts + classes.sum(0), sums + classes.T @ h
        rest = h - classes @ (self._sums / self._counts.clamp_min(TINY)[:, None])
        self._squares = squares + rest.T @ rest
        if self._batches % self.REFRESH == 0:
            self._inverse = self._inverse_root(self._squares / self._counts.sum())
        self._batches += 1

    def __call__(self, h: Tensor) -> Tensor:
        """Return features (N, d) in these units."""
        return h @ self._inverse.T

    def _inverse_root(self, covariance: Tensor) -> Tensor:
        """Return the inverse of the Cholesky factor of a covariance (d, d), with a ridge."""
        one = torch.eye(len(covariance)).to(covariance)
        ridge = self.RIDGE * covariance.diagonal().mean().clamp_min(TINY)
        inverse: Tensor = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance + ridge * one), one, upper=False
        )
        return inverse


def _within(x: Tensor) -> Tensor:
    """Return the mean distance of two different rows of x (N, d)."""
    return torch.pdist(x).mean() if len(x) > 1 else x.new_zeros(())
