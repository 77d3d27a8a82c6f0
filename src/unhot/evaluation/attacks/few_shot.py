"""Few-shot attacks: one, five or twenty images of the forgotten class against all of the retained ones."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unhot.evaluation.metric import Attack, Case, Finding, Labelled, NotMeasurable
from unhot.evaluation.recovery import recovered, reweighted, safe_queries
from unhot.evaluation.representations import Representation, representations
from unhot.evaluation.stats import LEVEL, Estimate
from unhot.records.audit import PlotData

SHOTS = (1, 5, 20)  # as the measures are called
SPARE = 4  # images of the class beyond those of a draw, or all draws would be nearly the same
SAMPLES = 200  # of the bootstrap


class Held(NamedTuple):
    """What an attacker holds of images, as rows of numbers.

    Attributes:
        gallery: Images to learn from.
        queries: Images to be classified.
    """

    gallery: Labelled
    queries: Labelled


class FewShot(Attack):
    r"""A few images of the class make a new class, and images that are nearest to its mean are classified as it.

    With :math:`m` the mean of the k images and :math:`m_j` those of the retained classes, the score of an image is
    :math:`-|z-m|^2 + \min_j |z-m_j|^2`. An image is classified as the class above a threshold: the lowest one at
    which at most ``cost`` of the retained test images are lost that the model classifies correctly.

    That is done with five representations :math:`z` of what the attacker holds, each of which undoes something that
    changes features and no answer: the numbers as they are; divided by their length; those dimensions in which the
    retained classes differ (F-test, p < 0.001/d), standardised; the normal scores of these, by their ranks; and
    whitened by the covariance within the retained classes. All are learnt from retained images. Reported is the
    strongest one's recovery, its mean over draws and forgotten classes, which are attacked one after the other.

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

    curve: ClassVar[str] = "few-shot"
    prefix: ClassVar[str] = "recovery"  # of its measures

    def held(self, case: Case) -> list[Held]:
        """Return what the attacker holds; of several the strongest counts."""
        return [Held(case.gallery(), case.queries())]

    def run(self, case: Case) -> Finding:
        """Attack."""
        found = self._estimates(case)
        measured = [(float(k), e.value) for k, e in found.items() if isinstance(e, Estimate)]
        x, y = zip(*measured, strict=True)
        points = PlotData(name=self.curve, subject=case.subject, run=case.run, x=x, y=y)
        return Finding({f"{self.prefix}_{k}_shot": e for k, e in found.items()}, (points,))

    def _estimates(self, case: Case) -> dict[int, Estimate | str]:
        """Return what each number of images recovers, or why that cannot be said."""
        holds = self.held(case)
        gallery, queries = holds[0]
        fewest = min(int((gallery.y == c).sum()) for c in case.views.columns)
        shots = [k for k in SHOTS if k + SPARE <= fewest]
        few = f"only {fewest} images of a forgotten class to learn from"
        if not shots:
            raise NotMeasurable(f"{few}, {SHOTS[0] + SPARE} are needed")
        retained = gallery.y[~case.is_forget(gallery.y)]
        if len(retained) <= len(retained.unique()):
            raise NotMeasurable("too few images of the retained classes to learn from")
        n = int(case.is_forget(queries.y).sum())
        values, samples = case.once((self, self.reads(case)), lambda: self._strongest(case, holds, shots))
        estimates: dict[int, Estimate | str] = {k: f"{few}, {k + SPARE} are needed" for k in SHOTS}
        ends = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        for k, value, low, high in zip(shots, values.tolist(), *ends.tolist(), strict=True):
            estimates[k] = Estimate(value, min(value, low), max(value, high), n)
        return estimates

    def reads(self, case: Case) -> str:
        """Return what is read of a model; the masked original's features are the original's."""
        return "features"

    def _strongest(self, case: Case, holds: list[Held], shots: list[int]) -> tuple[Tensor, Tensor]:
        """Return what the strongest attack recovers, (k,), and on each sample of the bootstrap, (S, k)."""
        parts = [self._recovered(case, held, shots) for held in holds]
        values, samples = (torch.cat(found).amax(0) for found in zip(*parts, strict=True))
        return values, samples

    def _recovered(self, case: Case, held: Held, shots: list[int]) -> tuple[Tensor, Tensor]:
        """Attack all classes with what is held; returns the means over these of :meth:`_class`."""
        gallery = held.gallery
        retained = ~case.is_forget(gallery.y)
        views = list(representations(Labelled(gallery.features[retained].double(), gallery.y[retained])))
        classes = [self._class(case, held, views, column, shots) for column in case.views.columns]
        values, samples = (torch.stack(parts).mean(0) for parts in zip(*classes, strict=True))
        return values, samples

    def _class(
        self, case: Case, held: Held, views: list[Representation], column: int, shots: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Attack one class.

        Returns:
            For each representation and number of images the mean recovery over draws, (V, k), and that of each sample
            of the bootstrap, (V, S, k).
        """
        gallery, queries = held
        own, mine, safe = gallery.features[gallery.y == column].double(), queries.y == column, safe_queries(case)
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


class FewShotOutputs(FewShot):
    """The attack of :class:`FewShot` on the logarithms of the probabilities that the model gives.

    Attributes:
        draws: Independent draws of the images.
        cost: Share of the retained images that may be lost.

    Source: that of :class:`FewShot`.
    """

    curve: ClassVar[str] = "few-shot-outputs"
    prefix: ClassVar[str] = "output_recovery"

    def reads(self, case: Case) -> str:
        """Return what is read of a model: outputs with those of the forgotten classes, or without."""
        return "masked outputs" if case.subject == "masked" else "outputs"

    def held(self, case: Case) -> list[Held]:
        """Return the outputs, without those that are the same for every image."""
        gallery, queries = (of(lambda view: view.outputs) for of in (case.gallery_of, case.queries_of))
        varies = (gallery.features != gallery.features[0]).any(0)
        if not varies.any():
            raise NotMeasurable("the outputs are the same for every image")
        return [Held(*(Labelled(h[:, varies], y) for h, y in (gallery, queries)))]


class FewShotLayers(FewShot):
    """The attack of :class:`FewShot` on the penultimate features and on those of earlier layers, the strongest counts.

    Attributes:
        draws: Independent draws of the images.
        cost: Share of the retained images that may be lost.

    Source: that of :class:`FewShot`.
    """

    curve: ClassVar[str] = "few-shot-layers"
    prefix: ClassVar[str] = "layer_recovery"

    def held(self, case: Case) -> list[Held]:
        """Return the features of all layers that are kept."""
        return [Held(case.gallery(layer), case.queries(layer)) for layer in (None, *case.view.layers)]
