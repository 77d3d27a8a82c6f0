r"""SalUn: random labels for the samples, and only the weights that are salient for them are trained.

Source: Fan, Liu, Zhang, Wong, Wei, Liu: SalUn: Empowering machine unlearning via gradient-based weight saliency in both
image classification and generation, ICLR 2024 (arXiv 2310.12508), and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from unhot.data.images import at_once
from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.batches import drawn, forget_stream, retain_batches
from unhot.methods.parts.departures import Departures
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class SalUn(Method):
    r"""Fine-tune on the samples with random other labels, training only the weights that are salient for them.

    .. math::
        m = \mathbb{1}\left[ \lvert \nabla_\theta L_f(\theta_o) \rvert \ge \gamma \right], \quad
        \theta = m \odot (\Delta\theta + \theta_o) + (1 - m) \odot \theta_o, \quad
        \min_{\Delta\theta} \operatorname*{mean}_{D_f} \ell(f_\theta(x), y') + \alpha \operatorname*{mean}_{D_r}
        \ell(f_\theta(x), y)

    y' is drawn anew in every step. The threshold gamma is such that exactly ``share`` of all weights is salient. As in
    the released code, normalisation takes the statistics of its batch and moves the running ones. ``lr`` was chosen on
    training images of Fashion-MNIST; the released code's, for random images of all classes, is 0.013.

    Attributes:
        epochs: Passes over the retained images; the samples are repeated as often as needed.
        share: Share of the weights that is trained; the paper's is 0.5.
        alpha: Weight of the retained images.
        lr: Learning rate of SGD with momentum 0.9 and weight decay 5e-4.
        batch_size: Retained images in a step.
        sample_batch: Samples in a step, passed together with the retained images; no more than those.
    """

    name: ClassVar[str] = "salun"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        code="y' is of a retained class, where it may be the class itself there. Weights that are not salient stay "
        "bit for bit the original's, where weight decay moved them in earlier versions. As in the paper's equation, "
        "each step sees samples and retained images, which pass together, mixed about as in training, where there an "
        "epoch is a pass over the samples and then one over the retained images.",
    )
    moves_statistics: ClassVar[bool] = True

    epochs: int = Field(default=10, ge=0)
    share: float = Field(default=0.5, gt=0, le=1)
    alpha: float = Field(default=1.0, ge=0)
    lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=256, ge=1)
    sample_batch: int = Field(default=16, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Find the salient weights, and train them."""
        weights = list(model.module.parameters())
        salient, original = self.salient(model, data.forget), [w.detach().clone() for w in weights]
        model.module.train()
        others, drawing = model.others(data.columns), runtime.generator("random labels")
        optimizer = torch.optim.SGD(weights, self.lr, momentum=0.9, weight_decay=5e-4)
        samples = forget_stream(data.forget, self.sample_batch, runtime)
        for epoch in range(self.epochs):
            for x, y in retain_batches(data.retain, model, self.batch_size, runtime, epoch):
                x_f, y_f, _ = next(samples).part(slice(len(x)))
                random = drawn(others, y_f, drawing)
                z = model.logits(torch.cat([x, x_f]))
                retain, forget = cross_entropy(z[: len(x)], y), cross_entropy(z[len(x) :], random)
                runtime.step(forget + self.alpha * retain, optimizer)
                with torch.no_grad():
                    for weight, mask, old in zip(weights, salient, original, strict=True):
                        weight.copy_(torch.where(mask, weight, old))
        return Outcome(model, "all epochs done")

    def salient(self, model: Classifier, forget: Batch) -> list[Tensor]:
        """Return which elements of each weight are salient, in the order of the net's parameters."""
        weights = list(model.module.parameters())
        total = [torch.zeros_like(w) for w in weights]
        batch = at_once(forget.x)
        for x, y in zip(forget.x.split(batch), forget.y.split(batch), strict=True):
            loss = cross_entropy(model.logits(x), y, reduction="sum")
            for so_far, gradient in zip(total, torch.autograd.grad(loss, weights, materialize_grads=True), strict=True):
                so_far += gradient
        size = torch.cat([t.flatten().abs() for t in total])
        mask = torch.zeros_like(size, dtype=torch.bool)
        mask[size.topk(round(self.share * len(size)), sorted=False).indices] = True
        parts = mask.split([w.numel() for w in weights])
        return [part.view_as(w) for part, w in zip(parts, weights, strict=True)]
