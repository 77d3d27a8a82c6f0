"""Over-unlearning: how far a model's outputs changed for slightly perturbed images of the class."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor
from torch.nn.functional import log_softmax

from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.metrics.output import js
from unhot.evaluation.stats import mean
from unhot.methods.parts.ascent import ascended


class OverUnlearning(Attack):
    r"""The mean Jensen-Shannon divergence between a model and the original on neighbours of forgotten images.

    Neighbours are found by projected gradient ascent on the original model's cross-entropy within ``epsilon`` of each
    image, in pixels scaled to 0..1, before normalisation. Distributions are over the retained classes. 0 to ln 2 nats;
    0 is the original. A retrained model's is not 0 either: read it beside that.

    Attributes:
        epsilon: Greatest change of a pixel, of 1.
        step: Change of a pixel in one step.
        steps: Steps of ascent.
        images: Greatest number of forgotten test images that are used.

    Source: OU@epsilon, Spotter, ICML 2026; unlike its released code, clamped in pixel space.
    """

    epsilon: float = Field(default=0.03, gt=0, lt=1)
    step: float = Field(default=0.01, gt=0, lt=1)
    steps: int = Field(default=3, ge=1)
    images: int = Field(default=128, ge=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        x = self.neighbours(case)
        original = Case(case.views, "original")
        if not case.model.same_inputs(original.model):
            raise NotMeasurable("the model takes its inputs in another way than the original")
        before, after = self._outputs(original, x), self._outputs(case, x)
        return Finding({"over_unlearning": mean(js(before, after), 0.0, math.log(2))})

    def neighbours(self, case: Case) -> Tensor:
        """Return the neighbours as inputs of a model, (N, C, H, W); the same for every model."""
        return case.views.once(("over-unlearning", tuple(case.views.columns), self), lambda: self._ascend(case))

    def _ascend(self, case: Case) -> Tensor:
        images, original = case.images("test"), case.views.models["original"][0]
        if original.input is None:
            raise NotMeasurable("the model does not say how pixels become its inputs")
        asked = case.some_forgotten(self.images)
        device = case.runtime.device
        x, y = images.inputs(asked, original.input, device), images.y[asked].to(device)
        model = original.trainable(device)
        model.module.eval().requires_grad_(False)
        generator = case.runtime.generator("neighbours")
        return ascended(model, x, y, self.epsilon, self.step, self.steps, generator)

    @staticmethod
    def _outputs(case: Case, x: Tensor) -> Tensor:
        """Return log-probabilities over the retained classes, (N, K)."""
        logits = case.views.logits(case.model, x)
        logits[:, [*case.views.columns, *case.views.earlier]] = -math.inf
        return log_softmax(logits, dim=1)
