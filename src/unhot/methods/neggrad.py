r"""NegGrad: gradient ascent on the samples.

Source: Golatkar, Achille, Soatto: Eternal sunshine of the spotless net: selective forgetting in deep networks, CVPR
2020 (arXiv 1911.04933), the baseline "negative gradient"; Thudi, Deza, Chandrasekaran, Papernot: Unrolling SGD:
understanding factors influencing machine unlearning, EuroS&P 2022 (arXiv 2109.13398).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import Request, literal
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class NegGrad(Method):
    r"""Ascend on the cross-entropy of the samples until they are no longer classified as the class.

    .. math::
        \theta \leftarrow \theta + \eta \nabla_\theta \operatorname*{mean}_{D_f} \ell(f_\theta(x), y)

    The usual settings, passes over the whole class at rates of 1e-5 to 1e-3, do nothing while the model is confident of
    the samples, since the gradient is almost 0, and destroy it once it is not. So the rate is large and the gradient is
    clipped to a small norm: most steps are equally long. Both were chosen on classes of Fashion-MNIST and MNIST: after
    forgetting eight samples the model had forgotten eight others of the class, too, and its outputs on distorted copies
    (:func:`unhot.data.augment.distort`) had changed little.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Maximum number of optimiser steps.
        batch_size: Samples in a step.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
        stop_at: Stop when the mean probability of the forgotten classes on a batch is no higher than this.
    """

    name: ClassVar[str] = "neggrad"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="The ascent, which has no bound, stops when the samples are no longer classified as the class, instead "
        "of after some passes.",
        code="Normalisation statistics are frozen, since those of samples of one class are not those of the rest.",
    )

    lr: float = Field(default=0.1, gt=0)
    steps: int = Field(default=200, ge=0)
    batch_size: int = Field(default=128, ge=1)
    clip: float = Field(default=0.03, gt=0)
    stop_at: float = Field(default=0.02, ge=0, le=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Ascend until the samples are forgotten, which is checked before every step."""
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        stop = Stop(self.stop_at, self.steps)
        for x, y, original in forget_stream(data.forget, self.batch_size, runtime):
            logits = model.logits(x)
            if stop(probability(logits, data.columns)):
                break
            runtime.step(literal(logits, Request(y, data.columns, original)), optimizer, self.clip)
        return Outcome(model, stop.reason, {"probability_left": stop.value})
