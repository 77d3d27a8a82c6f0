r"""MU-Mis: make the class's logit insensitive to the images, and others sensitive.

Source: Cheng, Huang, Zhou, He, Yang, Wu, Huang: Remaining-data-free machine unlearning by suppressing sample
contribution, ICLR 2026 (arXiv 2402.15109). Only its abstract and summaries were available to us: the loss and the
stopping rule are theirs, the settings are ours.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import drawn, forget_stream, logits_of
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

WATCHED = 64  # samples on which sensitivity is measured between steps, at most


class MuMis(Method):
    r"""Descend on the squared input gradient of the class's logit, ascend on that of a random other class.

    .. math::
        L = \frac{1}{s_0} \operatorname*{mean}_x \left( \lVert \nabla_x z_f(x) \rVert^2
        - \lVert \nabla_x z_{c'}(x) \rVert^2 \right), \quad c' \text{ drawn among the retained classes in every step}

    The loss has no minimum. The run stops when the sensitivity of the retained classes, which may fall at first, is
    ``recovered`` times that of the original, or when the samples are no longer classified as the class: further steps
    only harm the other classes. Second derivatives go through max pooling, ReLU and attention; for the last the fused
    kernels, which have none, are switched off. Normalisation statistics are frozen. :math:`s_0` is the class's
    sensitivity in the original model. Our settings were chosen on 16 samples of classes of Fashion-MNIST and MNIST:
    after the run no sample is classified as the class, and outputs on distorted copies of the samples have changed
    least.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9.
        steps: Maximum number of optimiser steps.
        batch_size: Samples in a step.
        recovered: Stop when the sensitivity of the retained classes is at least this multiple of the original's.
        stop_at: Stop when the mean probability of the forgotten classes on the samples is no higher than this.
    """

    name: ClassVar[str] = "mu-mis"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="The loss is divided by the class's sensitivity in the original model, so that one learning rate suits "
        "nets of any scale. The sensitivity that it stops at is measured on classes drawn once, so that steps can be "
        "compared. It also stops when the samples are no longer classified as the class.",
    )

    lr: float = Field(default=4e-3, gt=0)
    steps: int = Field(default=100, ge=0)
    batch_size: int = Field(default=64, ge=1)
    recovered: float = Field(default=2.0, gt=0)
    stop_at: float = Field(default=0.02, ge=0, le=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Descend until the sensitivity of the retained classes has recovered or the samples are forgotten."""
        x, y, _ = data.forget
        kept = torch.tensor([c for c in range(len(model.classes)) if c not in data.columns])
        draws, watched = runtime.generator("other class"), slice(WATCHED)
        others = drawn(kept, y[watched], draws)
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        stop, reason, left, back = Stop(self.stop_at), "all steps done", 1.0, 1.0
        with sdpa_kernel(SDPBackend.MATH):
            first = [s.mean() for s in sensitivities(model, x[watched], (y[watched], others))]
            for some, mine, _ in forget_stream(data.forget, self.batch_size, runtime, self.steps):
                target, other = sensitivities(model, some, (mine, drawn(kept, mine, draws)), create_graph=True)
                runtime.step((target - other).mean() / first[0], optimizer)
                now = [s.mean() for s in sensitivities(model, x[watched], (y[watched], others))]
                left, back = (float(a / b) for a, b in zip(now, first, strict=True))
                if back >= self.recovered:
                    reason = f"sensitivity of the retained classes at least {self.recovered} of the original"
                    break
                if stop(probability(logits_of(model, x[watched]), data.columns)):
                    reason = stop.reason
                    break
        return Outcome(model, reason, {"sensitivity_left": left, "sensitivity_retained": back})


def sensitivities(
    model: Classifier, x: Tensor, columns: tuple[Tensor, ...], create_graph: bool = False
) -> list[Tensor]:
    """Return the squared norm of the gradient of some logits by the input, (B,), for each choice of columns (B,)."""
    x = x.detach().requires_grad_()
    logits = model.logits(x)
    found = []
    for column in columns:
        chosen = logits.gather(1, column[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, x, create_graph=create_graph, retain_graph=True)
        found.append(gradient.square().flatten(1).sum(1))
    return found
