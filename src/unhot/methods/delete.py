r"""DELETE: decoupled distillation to erase.

Source: Zhou, Zheng, Mo, Lu, Lin, Zheng: Decoupled distillation to erase: a general unlearning method for any
class-centric tasks, CVPR 2025 (arXiv 2503.23751), and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import Request, masked
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class Delete(Method):
    r"""Distil the original model with the class masked.

    .. math::
        \min_\theta \operatorname*{mean}_{D_f} \operatorname{KL}(\tilde p(x) \Vert p_\theta(x)), \quad
        \tilde p = \operatorname{softmax}(z_o \text{ with } z_{o,k} = -\infty \text{ for } k \in F)

    The rate is the paper's for CIFAR-10. The number of steps, among 10, 20 and 40, was chosen on classes of
    Fashion-MNIST and MNIST: after forgetting eight samples the model had forgotten eight others of the class, too, and
    its outputs on distorted copies (:func:`unhot.data.augment.distort`) had changed little.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Number of steps.
        batch_size: Samples in a step.
    """

    name: ClassVar[str] = "delete"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        code="Where several classes are forgotten, all are left out of the target, where the code leaves out the "
        "sample's own, and teaches it the other ones. Normalisation statistics are frozen, since those of samples of "
        "one class are not those of the rest; that is an option there. Steps are counted, not 20 passes over the "
        "whole class, which are the presets.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {
        "cifar10": {"lr": 1e-4, "steps": 800},
        "cifar100": {"lr": 5e-5, "steps": 80},
    }

    lr: float = Field(default=1e-4, gt=0)
    steps: int = Field(default=40, ge=0)
    batch_size: int = Field(default=128, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Distil."""
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        for x, y, teacher in forget_stream(data.forget, self.batch_size, runtime, self.steps):
            runtime.step(masked(model.logits(x), Request(y, data.columns, teacher)), optimizer)
        return Outcome(model, "all steps done")
