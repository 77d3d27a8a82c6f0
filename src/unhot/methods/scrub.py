r"""SCRUB: a student that agrees with its teacher on the retained images and disagrees with it on the samples.

Source: Kurmanji, Triantafillou, Hayes, Triantafillou: Towards unbounded machine unlearning, NeurIPS 2023 (arXiv
2302.09880), section 3 and algorithm 1, and its released code.
"""

from __future__ import annotations

from itertools import islice
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.optim.lr_scheduler import MultiStepLR

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream, retain_batches
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

DECAY = (0.5, 0.8, 0.9)  # after these shares of the epochs the learning rate is divided by 10


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of logits (B, K) over a temperature T, nats, mean over B and sum over K."""
    p, q = log_softmax(teacher / temperature, 1), log_softmax(student / temperature, 1)
    return temperature**2 * kl_div(q, p, reduction="batchmean", log_target=True)


class Scrub(Method):
    r"""Alternate: min epochs on the retained images, max epochs on the samples; the last ones are min epochs.

    .. math::
        \min_\theta \; \frac{1}{|D_r|} \sum_{D_r} \left( \alpha \, d(x; \theta) + \gamma \, \ell(f_\theta(x), y) \right)
        - \frac{1}{|D_f|} \sum_{D_f} d(x; \theta), \qquad
        d(x; \theta) = T^2 \operatorname{KL}(p_{\theta_o}(x / T) \Vert p_\theta(x / T))

    ``max_steps`` was chosen on training images of Fashion-MNIST; all other settings are the released code's for small
    data sets.

    Attributes:
        epochs: Number of min epochs, passes over the retained images.
        max_epochs: Number of max epochs, one after each of the first min epochs; none follows the last one.
        max_steps: Steps of a max epoch.
        alpha: Weight of the divergence d on the retained images.
        gamma: Weight of the cross-entropy on the retained images.
        temperature: Temperature T.
        lr: Learning rate of Adam with weight decay 5e-4, divided by 10 after 5, 8 and 9 tenths of the epochs.
        batch_size: Retained images, and samples, in a step.
    """

    name: ClassVar[str] = "scrub"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="A max epoch follows a min epoch, since before the first of these student and teacher are the same, and "
        "the gradient of d is zero. A max epoch is `max_steps` steps, the samples gone through again as often as that "
        "takes, and not one pass, which is a single step if there are few samples.",
        code="Batches of the class alone pass with the running statistics of normalisation, and do not move them; "
        "those of retained images do, as there.",
    )
    moves_statistics: ClassVar[bool] = True

    epochs: int = Field(default=10, ge=1)
    max_epochs: int = Field(default=2, ge=0)
    max_steps: int = Field(default=3, ge=1)
    alpha: float = Field(default=0.5, ge=0)
    gamma: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=2.0, gt=0)
    lr: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=64, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Alternate."""
        teacher, student, size = model.copy(), model, self.batch_size
        optimizer = torch.optim.Adam(student.module.parameters(), self.lr, weight_decay=5e-4)
        schedule = MultiStepLR(optimizer, [round(share * self.epochs) for share in DECAY], gamma=0.1)
        samples = forget_stream(data.forget, size, runtime)
        for epoch in range(self.epochs):
            student.module.train()
            for x, y in retain_batches(data.retain, student, size, runtime, epoch):
                with torch.no_grad():
                    target = teacher.logits(x)
                z = student.logits(x)
                distance = divergence(z, target, self.temperature)
                runtime.step(self.alpha * distance + self.gamma * cross_entropy(z, y), optimizer)
            student.module.eval()
            if epoch < min(self.max_epochs, self.epochs - 1):
                for x, _, target in islice(samples, self.max_steps):
                    runtime.step(-divergence(student.logits(x), target, self.temperature), optimizer)
            schedule.step()
        return Outcome(student, "all epochs done")
