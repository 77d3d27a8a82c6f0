"""Few-shot attack: one, five or twenty images of the forgotten class against all of the retained ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.sparse.linalg import eigsh
from scipy.stats import f as f_distribution
from torch import Tensor
from torch.nn.functional import normalize

from unhot.evaluation.metric import Attack, Case, Finding, Labelled, NotMeasurable
from unhot.evaluation.recovery import recovered, reweighted, safe_queries
from unhot.evaluation.stats import LEVEL, Estimate
from unhot.records.audit import PlotData

SHOTS = (1, 5, 20)  # as the measures are called
SPARE = 4  # images of the class beyond those of a draw, or all draws would be nearly the same
SAMPLES = 200  # of the bootstrap
SURE = 1e-3  # chance that the F-test keeps any dimension in which the classes do not differ
DIMENSIONS = 8  # the F-test keeps as many at least
RIDGE = 1e-10  # of the largest eigenvalue; a larger one loses a class whose direction was shrunk
PART = 2_048  # queries at once


class FewShot(Attack):
    r"""A few images of the class make a new class, and images that are nearest to its mean are classified as it.

    With :math:`m` the mean of the k images and :math:`m_j` those of the retained classes, the score of an image is
    :math:`-|z-m|^2 + \min_j |z-m_j|^2`. An image is classified as the class above a threshold: the lowest one at
    which at most ``cost`` of the retained test images are lost that the model classifies correctly.

    That is done with four representations :math:`z` of the features, each of which undoes something that changes
    features and no answer: the features as they are; divided by their length; those dimensions in which the retained
    classes differ (F-test, p < 0.001/d), standardised; and whitened by the covariance within the retained classes. All
    are learnt from retained images. Reported is the strongest one's recovery, its mean over draws and forgotten
    classes, which are attacked one after the other.

    The interval is of a Bayesian bootstrap of draws and test images, in which each sample takes its own strongest
    representation; one image that is recovered and one that is not are added to each, so that it has a width at 0 and
    at 1. Draws and samples are the same for every model.

    Attributes:
        draws: Independent draws of the images.
        cost: Share of the retained images that may be lost.

    Source: prototypical networks, Snell, Swersky, Zemel, NeurIPS 2017; Bayesian bootstrap, Rubin, Ann. Stat. 1981.
    """

    draws: int = Field(default=20, ge=2)
    cost: float = Field(default=0.01, gt=0, lt=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        found = case.once(("few-shot", self), lambda: self._estimates(case))
        measured = [(float(k), e.value) for k, e in found.items() if isinstance(e, Estimate)]
        x, y = zip(*measured, strict=True)
        curve = PlotData(name="few-shot", subject=case.subject, run=case.run, x=x, y=y)
        return Finding({f"recovery_{k}_shot": e for k, e in found.items()}, (curve,))

    def _estimates(self, case: Case) -> dict[int, Estimate | str]:
        """Return what each number of images recovers, or why that cannot be said."""
        gallery, queries = case.gallery(), case.queries()
        fewest = min(int((gallery.y == c).sum()) for c in case.views.columns)
        shots = [k for k in SHOTS if k + SPARE <= fewest]
        few = f"only {fewest} images of a forgotten class to learn from"
        if not shots:
            raise NotMeasurable(f"{few}, {SHOTS[0] + SPARE} are needed")
        retained = ~case.is_forget(gallery.y)
        known = Labelled(gallery.features[retained].double(), gallery.y[retained])
        if len(known.y) <= len(known.y.unique()):
            raise NotMeasurable("too few images of the retained classes to learn from")
        n = int(case.is_forget(queries.y).sum())
        views = list(representations(known))
        classes = [self._class(case, views, column, shots) for column in case.views.columns]
        values, samples = (torch.stack(parts).mean(0) for parts in zip(*classes, strict=True))  # (V, k), (V, S, k)
        estimates: dict[int, Estimate | str] = {k: f"{few}, {k + SPARE} are needed" for k in SHOTS}
        for i, k in enumerate(shots):
            value = float(values[:, i].max())
            low, high = np.quantile(samples[:, :, i].amax(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            estimates[k] = Estimate(value, min(value, float(low)), max(value, float(high)), n)
        return estimates

    def _class(self, case: Case, views: list[Representation], column: int, shots: list[int]) -> tuple[Tensor, Tensor]:
        """Attack one class.

        Returns:
            For each representation and number of images the mean recovery over draws, (V, k), and that of each sample
            of the bootstrap, (V, S, k).
        """
        gallery, queries, safe = case.gallery(), case.queries(), safe_queries(case)
        own, mine = gallery.features[gallery.y == column].double(), queries.y == column
        if not mine.any():
            raise NotMeasurable("no images of a forgotten class to recognise")
        generator = case.runtime.generator("few-shot", column)
        orders = [torch.randperm(len(own), generator=generator)[: shots[-1]] for _ in range(self.draws)]
        weights = torch.empty(SAMPLES, len(mine) + 2).exponential_(generator=generator)
        images, (hit, miss) = weights[:, :-2], weights[:, -2:].T[:, :, None]
        of_draws = torch.empty(SAMPLES, self.draws).exponential_(generator=generator)
        of_draws /= of_draws.sum(1, keepdim=True)
        values, samples = [], []
        for view in views:
            drawn = torch.cat([view.of(own[order]).cumsum(0)[[k - 1 for k in shots]] for order in orders])
            means = drawn / torch.tensor(shots).repeat(self.draws)[:, None]
            scores = view.scores(queries.features, means)  # (N, draws times k)
            values.append(recovered(scores, mine, safe, self.cost).view(self.draws, -1).mean(0))
            found = reweighted(scores, mine, safe, self.cost, images).view(SAMPLES, self.draws, -1)
            share = (found + hit[:, :, None]) / (images[:, mine].sum(1)[:, None] + hit + miss)[:, :, None]
            samples.append((share * of_draws[:, :, None]).sum(1))
        return torch.stack(values), torch.stack(samples)


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
        rest = z - means(z)[index]
        if rest.any():
            yield Representation(standard, means(z), whitening(rest / (len(y) - len(classes)) ** 0.5))


def telling(z: Tensor, y: Tensor) -> Tensor:
    """Return the positions of the dimensions of features (N, d) that tell classes apart, or of the best eight."""
    classes = y.unique()
    of_class = [z[y == c] for c in classes]
    between = sum((len(g) * (g.mean(0) - z.mean(0)) ** 2 for g in of_class), torch.zeros(z.shape[1], dtype=z.dtype))
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in of_class)
    groups, rest = len(classes) - 1, len(y) - len(classes)
    ratio = (between / max(1, groups)) / (within / rest)
    p = f_distribution.sf(ratio.numpy(), max(1, groups), rest)
    count = max(DIMENSIONS, int((p < SURE / len(p)).sum()))
    return torch.from_numpy(np.argsort(p, kind="stable")[:count])


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
