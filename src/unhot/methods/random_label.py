r"""Random label: fine-tune on the samples under labels drawn among the other classes.

Source: Golatkar, Achille, Soatto: Eternal sunshine of the spotless net: selective forgetting in deep networks, CVPR
2020 (arXiv 1911.04933), the baseline "random labels"; Graves, Nagisetty, Ganesh: Amnesiac machine learning, AAAI 2021.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import drawn, forget_stream
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class RandomLabel(Method):
    r"""Fine-tune on the samples with random other labels.

    .. math::
        \min_\theta \operatorname*{mean}_{D_f} \ell(f_\theta(x), y'), \quad
        y' \text{ drawn for each sample among the retained classes}

    The label of a sample is drawn once. A rate of 1e-4 is common in published code. The number of steps was chosen on
    classes of Fashion-MNIST and MNIST: after forgetting eight samples the model had forgotten eight others of the
    class, too, and its outputs on distorted copies (:func:`unhot.data.augment.distort`) had changed little.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Number of steps.
        batch_size: Samples in a step.
    """

    name: ClassVar[str] = "random-label"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="Only the samples are trained on, where the papers go on with retained images.",
        code="y' is never a class to forget, nor one that was forgotten before, where circulating code draws over all "
        "classes, so that samples may keep their own. Normalisation statistics are frozen, since those of samples of "
        "one class are not those of the rest. Steps are counted, not passes over the whole class.",
    )

    lr: float = Field(default=1e-4, gt=0)
    steps: int = Field(default=40, ge=0)
    batch_size: int = Field(default=128, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Draw the labels once, and fine-tune."""
        forget = data.forget._replace(y=self.labels(model, data, runtime))
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        for x, label, _ in forget_stream(forget, self.batch_size, runtime, self.steps):
            runtime.step(cross_entropy(model.logits(x), label), optimizer)
        return Outcome(model, "all steps done")

    def labels(self, model: Classifier, data: Data, runtime: Runtime) -> Tensor:
        """Draw one of the classes that are retained, and were not forgotten before, for each sample, int64 (B,)."""
        return drawn(model.others(data.columns), data.forget.y, runtime.generator("random labels"))
