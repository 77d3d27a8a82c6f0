"""Representations of features: ways of looking at them, each of which undoes a change that alters no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from scipy.stats import f as f_distribution
from torch import Tensor
from torch.nn.functional import normalize

from unhot.evaluation.metric import Labelled

SURE = 1e-3  # chance that the F-test keeps any dimension in which the classes do not differ
DIMENSIONS = 8  # the F-test keeps as many at least
RIDGE = 1e-10  # of the largest eigenvalue; a larger one loses a class whose direction was shrunk
RANKS = 500  # known numbers at most, at even distances, that ranks are among
PART = 2_048  # images at once


class Representation(NamedTuple):
    """Features as somebody may look at them, who has images of the retained classes.

    Attributes:
        of: Maps features (N, d) to (N, e), float64.
        means: Those of the retained classes, (K, e).
        weigh: Multiplies vectors (M, e) with the matrix of the inner product.
    """

    of: Callable[[Tensor], Tensor]
    means: Tensor
    weigh: Callable[[Tensor], Tensor]

    def scores(self, features: Tensor, means: Tensor) -> Tensor:
        """Return by how much features (N, d) are nearer to each mean (M, e) than to the nearest retained one, (N, M).

        Of the squared distances the square of the features is the same to all means, and left out.
        """
        linear = [(2 * w.T, (m * w).sum(1)) for m in (means, self.means) for w in [self.weigh(m)]]
        parts = []
        for part in features.split(PART):
            z = self.of(part.double())
            ours, theirs = (z @ w - b for w, b in linear)
            parts.append(ours - theirs.amax(1, keepdim=True))
        return torch.cat(parts)


def representations(known: Labelled) -> Iterator[Representation]:
    """Learn the representations from retained images; those that their features do not allow are left out.

    Args:
        known: Features (N, d), float64, and classes of retained images, at least two of some class.
    """
    h, y = known
    classes, index, counts = y.unique(return_inverse=True, return_counts=True)

    def means(z: Tensor) -> Tensor:
        found: Tensor = z.new_zeros(len(classes), z.shape[1]).index_add_(0, index, z) / counts[:, None]
        return found

    def unit(z: Tensor) -> Tensor:
        return normalize(z, eps=1e-300)

    def plain(of: Callable[[Tensor], Tensor]) -> Representation:
        return Representation(of, means(of(h)), lambda m: m)

    middle, spread, varies = h.mean(0), h.std(0), (h != h[0]).any(0).nonzero().flatten()

    def standard(z: Tensor, kept: Tensor = varies) -> Tensor:
        return (z.index_select(1, kept) - middle[kept]) / spread[kept]

    yield plain(lambda z: z - middle)  # distances are the same, and their digits are those of the differences
    yield plain(unit)
    if len(varies):
        z = standard(h)
        chosen = varies[telling(z, y)]
        yield plain(lambda z: standard(z, chosen))
        score = normal_scores(h[:, chosen])
        yield plain(lambda z: score(z.index_select(1, chosen)))
        rest = z - means(z)[index]
        if rest.any():
            yield Representation(standard, means(z), whitening(rest / (len(y) - len(classes)) ** 0.5))


def normal_scores(known: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what maps numbers (M, d) to the normal quantiles of their ranks among known ones (N, d), by dimension.

    That is the same for every increasing function of a number. Ties have their middle rank.

    Source: van der Waerden: Order tests for the two-sample problem, Indagationes Mathematicae 1952.
    """
    order = known.T.float().contiguous().sort(1).values[:, :: -(-len(known) // RANKS)].contiguous()

    def score(z: Tensor) -> Tensor:
        columns = z.T.float().contiguous()
        below, within = (torch.searchsorted(order, columns, right=right, out_int32=True) for right in (False, True))
        found: Tensor = torch.special.ndtri((below + within + 1).T.double() / (2 * order.shape[1] + 2))
        return found

    return score


def telling(z: Tensor, y: Tensor) -> Tensor:
    """Return the positions of the dimensions of features (N, d) that tell classes apart, or of the best eight."""
    p = f_distribution.sf(variance_ratios(z, y).numpy(), max(1, len(y.unique()) - 1), len(y) - len(y.unique()))
    count = max(DIMENSIONS, int((p < SURE / len(p)).sum()))
    return torch.from_numpy(np.argsort(p, kind="stable")[:count])


def variance_ratios(z: Tensor, y: Tensor) -> Tensor:
    """Return the F statistic of each dimension of features (N, d): variance between classes over that within, (d,)."""
    of_class = [z[y == c] for c in y.unique()]
    between = sum((len(g) * (g.mean(0) - z.mean(0)) ** 2 for g in of_class), torch.zeros(z.shape[1], dtype=z.dtype))
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in of_class)
    found: Tensor = (between / max(1, len(of_class) - 1)) / (within / (len(y) - len(of_class)))
    return found


def whitening(rest: Tensor) -> Callable[[Tensor], Tensor]:
    r"""Return what multiplies vectors (M, d) with :math:`(R^T R + \rho I)^{-1}`, the ridge relative to the matrix.

    Args:
        rest: R (N, d). Of d and N the smaller one is the size of the matrix that is solved for.
    """
    wide = rest.shape[1] > len(rest)
    small = rest @ rest.T if wide else rest.T @ rest
    start = np.random.default_rng(0).standard_normal(len(small))
    largest = eigsh(small.numpy(), k=1, v0=start, return_eigenvectors=False)[0] if len(small) > 1 else small[0, 0]
    ridge = RIDGE * float(largest)
    factor = torch.linalg.cholesky(small + ridge * torch.eye(len(small), dtype=small.dtype))

    def weigh(m: Tensor) -> Tensor:
        if not wide:
            return torch.cholesky_solve(m.T, factor).T
        return (m - torch.cholesky_solve(rest @ m.T, factor).T @ rest) / ridge

    return weigh
