r"""NegGrad+: descent on the retained images and ascent on the samples, in every step.

Source: Kurmanji, Triantafillou, Hayes, Triantafillou: Towards unbounded machine unlearning, NeurIPS 2023 (arXiv
2302.09880), the baseline of that name, and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream, retain_batches
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class NegGradPlus(Method):
    r"""Raise the loss on the class while the loss on the rest is kept low.

    .. math::
        L = \beta \operatorname*{mean}_{D_r} \ell(f_\theta(x), y)
        - (1 - \beta) \operatorname*{mean}_{D_f} \ell(f_\theta(x), y)

    An epoch is a pass over the retained images; the samples are repeated as often as needed. As in the released
    code, normalisation takes the statistics of its batch and moves the running ones. ``beta`` and ``lr`` are the
    released code's; ``ceiling`` was chosen on training images of Fashion-MNIST.

    Attributes:
        epochs: Passes over the retained images.
        beta: Weight of the descent; the ascent has weight 1 - beta.
        lr: Learning rate of SGD with momentum 0.9.
        batch_size: Retained images in a step.
        sample_batch: Samples in a step, passed together with the retained images; no more than those.
        ceiling: Loss on the samples, in nats, above which there is no ascent; far above that of guessing.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
    """

    name: ClassVar[str] = "neggrad+"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="The ascent, which has no bound, is left out of a step where the mean loss on the samples is above "
        "`ceiling`; without that a long run destroys the net, whatever beta.",
        code="Samples and retained images pass together, mixed about as in training, since the statistics of a batch "
        "of one class are not those of the rest.",
    )
    moves_statistics: ClassVar[bool] = True

    epochs: int = Field(default=5, ge=0)
    beta: float = Field(default=0.95, ge=0, le=1)
    lr: float = Field(default=0.01, gt=0)
    batch_size: int = Field(default=128, ge=1)
    sample_batch: int = Field(default=16, ge=1)
    ceiling: float = Field(default=20.0, gt=0)
    clip: float = Field(default=1.0, gt=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Descend and ascend."""
        model.module.train()
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        samples = forget_stream(data.forget, self.sample_batch, runtime)
        for epoch in range(self.epochs):
            for x, y in retain_batches(data.retain, model, self.batch_size, runtime, epoch):
                x_f, y_f, _ = next(samples).part(slice(len(x)))
                z = model.logits(torch.cat([x, x_f]))
                retain, forget = cross_entropy(z[: len(x)], y), cross_entropy(z[len(x) :], y_f)
                ascent = (1 - self.beta) * forget * (forget < self.ceiling)
                runtime.step(self.beta * retain - ascent, optimizer, self.clip)
        return Outcome(model, "all epochs done")
