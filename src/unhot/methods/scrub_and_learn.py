r"""Scrub-and-Learn: fine-tune on the samples with the most likely other class.

Source: Wang, Bie, Jing, Zhi: Scrub-and-Learn: category-aware weight modification for machine unlearning, AI 6(6):108,
2025, doi 10.3390/ai6060108, algorithm 1. Only its abstract and its outline were available to us.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import Request, second_class
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class ScrubAndLearn(Method):
    r"""Sub-maximum one-hot encoding: the label is the original's most likely class other than the sample's own.

    .. math::
        \min_\theta \operatorname*{mean}_{D_f} \ell(f_\theta(x), y'), \quad
        y' = \operatorname*{argmax}_{k \notin F} f_o(x)_k

    From the paper: the labels, computed once by the original, and fine-tuning on images of the class only. The paper's
    settings were not available to us; ours were chosen on classes of Fashion-MNIST and MNIST: after forgetting eight
    samples the model had forgotten eight others of the class, too, and its outputs on distorted copies
    (:func:`unhot.data.augment.distort`) had changed little.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Number of steps.
        batch_size: Samples in a step.
    """

    name: ClassVar[str] = "scrub-and-learn"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        reconstruction="Only the paper's abstract and outline were available: optimiser, rate, steps, and frozen "
        "normalisation statistics are ours.",
    )

    lr: float = Field(default=1e-4, gt=0)
    steps: int = Field(default=40, ge=0)
    batch_size: int = Field(default=128, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Fine-tune on the second most likely classes."""
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        for x, y, original in forget_stream(data.forget, self.batch_size, runtime, self.steps):
            runtime.step(second_class(model.logits(x), Request(y, data.columns, original)), optimizer)
        return Outcome(model, "all steps done")
