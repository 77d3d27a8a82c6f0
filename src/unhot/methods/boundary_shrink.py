r"""Boundary Shrink: fine-tune on the samples under the classes across the nearest boundary.

Source: Chen, Gao, Liu, Peng, Wang: Boundary unlearning: rapid forgetting of deep networks via shifting the decision
boundary, CVPR 2023 (arXiv 2303.11570), and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.ascent import ascended
from unhot.methods.parts.batches import forget_stream, logits_of
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import Request
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class BoundaryShrink(Method):
    r"""Fine-tune on each sample under the class that a small step away from its own leads to.

    .. math::
        x' = x + \epsilon \operatorname{sign} \nabla_x \ell(f_o(x), y), \quad
        y' = \operatorname*{argmax}_{k \notin F} f_o(x')_k, \quad
        \min_\theta \operatorname*{mean}_{D_f} \ell(f_\theta(x), y')

    Rate and steps were chosen on classes of Fashion-MNIST and MNIST: after forgetting eight samples the model had
    forgotten eight others of the class, too, and its outputs on distorted copies (:func:`unhot.data.augment.distort`)
    had changed little.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Number of steps.
        batch_size: Samples in a step.
        epsilon: Change of every pixel, on a scale of 0..1.
    """

    name: ClassVar[str] = "boundary-shrink"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        code="`epsilon` is of pixels in 0..1 and x' is kept among images that exist, where the code undoes the "
        "normalisation of CIFAR-10, with a wrong mean, whatever the model's is. y' is never a class to forget, where "
        "the code takes the class that x' is classified as, so that a sample whose x' does not cross the boundary is "
        "taught its own class. Normalisation statistics are frozen, since those of samples of one class are not those "
        "of the rest. x' is found once, since the original does not change. Steps are counted, not 10 passes over "
        "5,000 images at a rate of 1e-5, which does nothing in the few steps that 16 samples give.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {"cifar10": {"lr": 1e-5, "steps": 790}}

    lr: float = Field(default=1e-4, gt=0)
    steps: int = Field(default=30, ge=0)
    batch_size: int = Field(default=64, ge=1)
    epsilon: float = Field(default=0.1, gt=0, lt=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Find the class across the boundary once, with the original model, and fine-tune."""
        y, across = data.forget.y, self.across(model, data.forget)
        nearest = Request(y, data.columns, across).without_forgotten(across).argmax(1)
        forget = data.forget._replace(y=nearest)
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        for x, label, _ in forget_stream(forget, self.batch_size, runtime, self.steps):
            runtime.step(cross_entropy(model.logits(x), label), optimizer)
        crossed = (across.argmax(1) == nearest).float().mean().item()
        return Outcome(model, "all steps done", {"crossed": crossed})

    def across(self, model: Classifier, forget: Batch) -> Tensor:
        """Return the model's logits, (B, K), one step of the fast gradient sign method away from each sample."""
        return logits_of(model, ascended(model, forget.x, forget.y, self.epsilon, self.epsilon, steps=1))
