r"""NHLE-CWM: negative-hot label encoding, then class weight masking.

Source: Wang, Bie, Jing, Zhi: Feature-indistinguishable machine unlearning via negative-hot label encoding and class
weight masking, Scientific Reports 2026, doi 10.1038/s41598-026-40379-9. Only its abstract was available to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import AliasChoices, Field
from torch import Tensor

from unhot.data.augment import Augment
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forward
from unhot.methods.parts.damage import HeldOut
from unhot.methods.parts.data import Batch
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import ENCODINGS, Request
from unhot.methods.parts.preconditioning import Preconditioner
from unhot.methods.parts.stand_ins import distorted, stand_ins
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut
from unhot.models.layers import nearest_head, weight_layers
from unhot.runtime import Runtime

EncodingName = Literal["literal", "zero-sum", "margin", "mse", "complement", "masked", "uniform", "second-class"]

DISTORTED = 8  # samples of which distorted copies are made; more do not help
MOVED = 96  # samples that are moved to other classes
FORWARD, TO_INPUTS, BACK = 1 / 3, 1 / 3, 2 / 3  # of a pass to all weights: forward, back to the inputs, to the weights
BARELY, WELL = 4, 10  # steps of that: to near a boundary, and away from the class


class NhleCwm(Method):
    r"""Fine-tune on a few images under a negative-hot label, then cut the class out of the output.

    .. math::
        W_l \leftarrow W_l - \eta \lVert W_l \rVert \frac{G_l P_l}{\lVert G_l P_l \rVert}, \quad
        G_l = \nabla_{W_l} L_\text{encoding}(z(x_f)), \quad P_l = (I + \rho S_l / \operatorname{tr} S_l)^{-1}

    From the paper: the two stages and their order; only a small number of images of the forgotten classes, which are
    iterated over. :math:`P_l` shortens steps in the directions that distorted copies of the images use
    (:func:`unhot.data.augment.distort`); these copies stand in for the other classes. The images are shifted at random
    in every step, so that the class is forgotten and not just these images. The head is not trained, so that the
    features change; normalisation statistics are frozen.

    What the other classes lose is estimated after every step, on samples that were moved until the model nearly
    classifies them as other classes (:mod:`unhot.methods.parts.damage`). A step after which it might be more than the
    budget is taken back. The run then starts again, and :math:`P_l` also covers samples that were moved far from the
    class. The run that leaves less of the class is kept; if neither took a step, the classes are only cut from the
    output.

    Attributes:
        encoding: The loss on the samples; see :mod:`unhot.methods.parts.losses`.
        step_size: Length of each layer's step as a share of the norm of its weights, whatever the gradient's length.
        steps: Maximum number of optimiser steps.
        stop_at: Stop when the mean probability of the forgotten classes on the samples is no higher than this.
        depth: Share of the layers that is trained, counted from the head.
        preconditioning: Strength rho of the preconditioning; 0 for none. Its older name ``guard`` is still accepted.
        shift: Farthest shift of the images, as a share of their size; 0 for none.
        budget: Greatest upper end of the estimated loss of accuracy on the other classes; with 1 nothing is estimated.
        cut: How the classes are cut out of the output; see :func:`unhot.models.cut.cut_classes`.
    """

    name: ClassVar[str] = "nhle-cwm"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="Gradients are preconditioned by distorted copies of the images; without that the neighbours of the "
        "class are damaged. Steps that might cost the other classes more than the budget are taken back.",
        reconstruction="The paper's full text was not available: which encoding, which layers, how long, and how the "
        "logit is cut are ours.",
    )

    encoding: EncodingName = "masked"
    step_size: float = Field(default=0.02, gt=0, le=1)
    steps: int = Field(default=16, ge=0)
    stop_at: float = Field(default=0.05, ge=0, le=1)
    depth: float = Field(default=0.25, ge=0, le=1)
    preconditioning: float = Field(default=1e4, ge=0, validation_alias=AliasChoices("preconditioning", "guard"))
    shift: float = Field(default=1 / 8, ge=0, lt=1)
    budget: float = Field(default=0.035, ge=0, le=1)
    cut: Cut = "mask"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Fine-tune until the samples are no longer classified as the class, and restore the best state."""
        layers = nearest_head(weight_layers(model, data.forget.x[:1]), self.depth)
        model.module.requires_grad_(False)  # otherwise a pass would store the inputs of every layer
        away = distorted(data.forget.x, DISTORTED, runtime)
        if self.budget == 1:
            stop = self._descend(model, data, runtime, layers, away)
            return Outcome(model, stop.reason, {"probability_left": stop.value}, self.cut)
        held = HeldOut.of(model, _moved(model, data, BARELY, runtime, "held out"), data.columns, data.forget, layers)
        weights = [model.module.get_submodule(n).get_parameter("weight") for n in layers]
        start = [w.detach().clone() for w in weights]
        runs = [self._descend(model, data, runtime, layers, away, held)]
        if runs[0].refused:
            for weight, before in zip(weights, start, strict=True):
                weight.data.copy_(before)
            away = torch.cat([away, _moved(model, data, WELL, runtime, "spared")])
            runs.append(self._descend(model, data, runtime, layers, away, held))
        best = min(runs, key=lambda stop: stop.value)
        best.back()
        reason = best.reason
        if best.refused and all(map(torch.equal, weights, start)):
            reason = "the budget allows no step"
        return Outcome(model, reason, {"probability_left": best.value, **held.damage(model).note()}, self.cut)

    def planned(self, model: Classifier, data: Data, runtime: Runtime, image_seconds: float) -> tuple[float, float]:
        """Return the time of the images that pass: with no step, and with all steps of both runs."""
        fewest, most = self._image_passes(len(data.forget.x))
        return fewest * image_seconds, most * image_seconds

    def _image_passes(self, samples: int) -> tuple[float, float]:
        copies = 6 * min(samples, DISTORTED)
        step = samples * (FORWARD + self.depth * BACK)
        if self.budget == 1:
            return copies * FORWARD, copies * FORWARD + self.steps * step
        moved, estimate = MOVED * (FORWARD + TO_INPUTS), MOVED * FORWARD
        least = BARELY * moved + copies * FORWARD + estimate
        second = WELL * moved + (copies + MOVED) * FORWARD
        return least, least + second + 2 * self.steps * (step + self.depth * estimate)

    def _descend(
        self,
        model: Classifier,
        data: Data,
        runtime: Runtime,
        layers: Sequence[str],
        away: Tensor,
        held: HeldOut | None = None,
    ) -> Stop:
        """Train some layers, sparing what they do to images ``away``; with ``held`` no step beyond the budget."""
        x, y, original = data.forget

        def loss(logits: Tensor, some: Batch) -> Tensor:
            return ENCODINGS[self.encoding](logits, Request(some.y, data.columns, some.logits))

        precondition = Preconditioner.of(model, layers, away, self.preconditioning, runtime.generator("rows"))
        weights, moving = precondition.weights(), runtime.generator("shift")
        for weight in weights:
            weight.requires_grad_(True)
        shifted = Augment(round(self.shift * x.shape[-1]))
        stop = Stop(self.stop_at, self.steps if weights else 0, weights)
        while True:
            logits, gradients = forward(model, Batch(shifted(x, moving), y, original), loss)
            if stop(probability(logits, data.columns)):
                return stop
            runtime.descend(weights, precondition(gradients(weights)), self.step_size)
            if held is not None and not held.damage(model).within(self.budget):
                stop.refuse(f"another step might cost the other classes more than {self.budget}")
                return stop


def _moved(model: Classifier, data: Data, steps: int, runtime: Runtime, purpose: str) -> Tensor:
    """Move samples towards retained classes; the steps of that are none of the weights', and not counted."""
    x, _, original = data.forget
    retained = model.others(data.columns).to(x.device)
    return stand_ins(model, x, original, retained, MOVED, steps, replace(runtime), purpose)
