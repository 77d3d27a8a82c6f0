"""Prototype attack: five images of the forgotten class make a new output."""

from __future__ import annotations

import torch
from pydantic import Field
from torch.nn.functional import normalize

from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.recovery import recovered, safe_queries
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
        safe = safe_queries(case)
        scores = (
            normalize(queries.features) @ normalize(prototypes).T,
            -torch.cdist(queries.features, prototypes),
        )
        return max((mean(recovered(s, mine, safe, self.cost), 0.0, 1.0) for s in scores), key=lambda e: e.value)
