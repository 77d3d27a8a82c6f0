"""Prototype attack: five images of the forgotten class make a new output."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.stats import Estimate, averaged, mean


class Prototype(Attack):
    r"""The mean feature of a few images of the class becomes a new output.

    An image is classified as the class when its score, the cosine with the prototype or minus the Euclidean distance
    to it, exceeds a threshold: the lowest one at which at most ``cost`` of the retained test images are lost. Reported
    is the accuracy on forgotten test images, the mean over draws of the better of the two scores; several forgotten
    classes are attacked one after the other. The threshold is chosen on test images, so this is an attacker's best.

    Attributes:
        shots: Images of a prototype.
        draws: Independent draws of these images.
        cost: Share of the retained images that may be lost.

    Source: prototypical relearning attack, Spotter, ICML 2026; unlike there, at a fixed cost on retained classes.
    """

    shots: int = Field(default=5, ge=1)
    draws: int = Field(default=20, ge=2)
    cost: float = Field(default=0.01, gt=0, lt=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        found = [self._class(case, column) for column in case.views.columns]
        return Finding({"prototype_attack_accuracy": averaged(found)})

    def _class(self, case: Case, column: int) -> Estimate:
        gallery, queries = case.gallery(), case.queries()
        known = gallery.features[gallery.y == column]
        if len(known) < self.shots:
            raise NotMeasurable(f"only {len(known)} images of a forgotten class to learn from, {self.shots} are needed")
        generator = case.runtime.generator("prototype", column)
        drawn = torch.stack([torch.randperm(len(known), generator=generator)[: self.shots] for _ in range(self.draws)])
        prototypes = known[drawn].mean(1)
        mine = queries.y == column
        if not mine.any():
            raise NotMeasurable("no images of a forgotten class to recognise")
        safe = self._correct(case, queries.y)
        scores = (
            normalize(queries.features) @ normalize(prototypes).T,
            -torch.cdist(queries.features, prototypes),
        )
        return max((mean(recovered(s, mine, safe, self.cost), 0.0, 1.0) for s in scores), key=lambda e: e.value)

    @staticmethod
    def _correct(case: Case, y: Tensor) -> Tensor:
        """Return which queries are of retained classes and classified correctly among these, bool (N,)."""
        view = case.on("test")
        right = view.masked.correct & ~view.is_forget
        return right if len(right) == len(y) else right[case.halves[1]]


def recovered(scores: Tensor, mine: Tensor, safe: Tensor, cost: float) -> Tensor:
    """Return the best recovery of a class at a bounded cost.

    Args:
        scores: (N, R), of N images in R tries; higher is more like the class.
        mine: Which images are of the class, bool (N,).
        safe: Which images would be lost if they were classified as the class, bool (N,).
        cost: Share of the safe images that may be lost.

    Returns:
        The share of the class that scores above the threshold of each try, (R,).
    """
    if not safe.any():
        raise NotMeasurable("the model gets no retained image right, so nothing bounds the attack")
    allowed = int(cost * int(safe.sum()))
    threshold = scores[safe].topk(allowed + 1, dim=0).values[-1]
    return (scores[mine] > threshold).float().mean(0)
