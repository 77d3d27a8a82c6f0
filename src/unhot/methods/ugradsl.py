r"""UGradSL and UGradSL+: ascent on the samples under negatively smoothed labels, descent on retained images.

Source: Di, Zhu, Jia, Liu, Takhirov, Jiang, Yao, Liu, Liu: Label smoothing improves machine unlearning, ICLR 2026 (arXiv
2406.07698), equation 8 and algorithm 1. Only its abstract and summaries of it were available to us: settings are ours,
chosen on training images of Fashion-MNIST.
"""

from __future__ import annotations

from itertools import count
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_batches, forget_stream, logits_of, retain_batches, retain_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


def smoothed_cross_entropy(logits: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, K) to labels y smoothed at rates alpha (B,), which may be negative.

    The label of an image is (1 - alpha) e_y + alpha / K.
    """
    log_p = log_softmax(logits, 1)
    own = log_p.gather(1, y[:, None]).squeeze(1)
    return -((1 - alpha) * own + alpha * log_p.mean(1)).mean()


def near(forget: Tensor, retain: Tensor, beta: float) -> Tensor:
    """Return the share of retained features (R, d) within a distance of each forget feature (B, d), (B,).

    The distance, 0 to 1, is half of 1 - cosine.
    """
    distance = (1 - normalize(forget.detach()) @ normalize(retain.detach()).T) / 2
    return (distance <= beta).to(forget.dtype).mean(1)


class Ugradsl(Method):
    r"""Gradient ascent with negatively smoothed labels, until the class is forgotten.

    .. math::
        L = p \operatorname*{mean}_{B_r} \ell(f_\theta(x), y) - (1 - p) \operatorname*{mean}_{B_f}
        \ell(f_\theta(x), y^{\alpha_j}), \qquad
        y^\alpha = (1 - \alpha) e_y + \frac{\alpha}{K} \mathbf{1}, \quad \alpha < 0

    The gradient of plain ascent, e_y - p, is zero where the net is confident of the class; smoothing adds
    :math:`|\alpha| (e_y - 1/K)`, which is not. An epoch is a pass over the samples, each step with some retained
    images. Without ``alpha`` each sample has a rate of its own: :math:`\alpha_j = -c_j / |B_r|`, with :math:`c_j` the
    number of retained images of the step whose features are within ``beta`` of the sample's.

    Attributes:
        steps: Maximum number of optimiser steps.
        stop_at: Stop when the mean probability of the forgotten classes on the samples is at most this after an epoch.
        p: Weight of the descent; the ascent has weight 1 - p.
        alpha: Rate of smoothing, the same for all samples; None for one for each sample.
        beta: Distance within which a retained image counts, where ``alpha`` is None.
        lr: Learning rate of SGD with momentum 0.9.
        batch_size: Retained images in a step.
        sample_batch: Samples in a step, passed together with the retained images; no more than those.
        ceiling: Cross-entropy of the samples, in nats, above which there is no ascent; far above that of guessing.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
    """

    name: ClassVar[str] = "ugradsl"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Departures(
        paper="Samples and retained images pass together, mixed about as in training and not half and half, since "
        "normalisation takes the statistics of its batch and moves the running ones. Means are taken and not sums, "
        "and c_j is divided by the number of retained images and not of samples, so that both may be of any number. "
        "The distance, which the paper leaves open, is half of 1 - cosine. The convergence that ends the run is "
        "`stop_at`. The ascent, which has no bound, is left out of a step where the mean cross-entropy of the "
        "samples, not smoothed, is above `ceiling`.",
    )
    moves_statistics: ClassVar[bool] = True

    steps: int = Field(default=100, ge=0)
    stop_at: float = Field(default=0.01, ge=0, le=1)
    p: float = Field(default=0.5, ge=0, le=1)
    alpha: float | None = Field(default=-0.5, le=0)
    beta: float = Field(default=0.2, ge=0, le=1)
    lr: float = Field(default=3e-3, gt=0)
    batch_size: int = Field(default=128, ge=1)
    sample_batch: int = Field(default=16, ge=1)
    ceiling: float = Field(default=10.0, gt=0)
    clip: float = Field(default=1.0, gt=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Ascend in passes over the samples until they are forgotten."""
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        images = retain_stream(data.retain, model, self.batch_size, runtime)
        stop, passes = Stop(self.stop_at), count()
        while not stop(left(model, data), last=runtime.steps >= self.steps):
            for samples in forget_batches(data.forget, self.sample_batch, runtime, next(passes)):
                if runtime.steps < self.steps:
                    loss = mixed(self, model, samples, next(images))
                    runtime.step(loss, optimizer, self.clip)
        return Outcome(model, stop.reason, {"probability_left": stop.value})


class UgradslPlus(Method):
    r"""Fine-tuning on the retained images, with ascent with negatively smoothed labels in every step.

    The loss is that of ``ugradsl``. An epoch is a pass over the retained images; the samples are repeated as often as
    needed.

    Attributes:
        epochs: Passes over the retained images.
        p: Weight of the descent; the ascent has weight 1 - p.
        alpha: Rate of smoothing, the same for all samples; None for one for each sample.
        beta: Distance within which a retained image counts, where ``alpha`` is None.
        lr: Learning rate of SGD with momentum 0.9.
        batch_size: Retained images in a step.
        sample_batch: Samples in a step, passed together with the retained images; no more than those.
        ceiling: Cross-entropy of the samples, in nats, above which there is no ascent; far above that of guessing.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
    """

    name: ClassVar[str] = "ugradsl+"
    uses: ClassVar[tuple[Use, ...]] = ("forget", "retain")
    departures: ClassVar[Departures] = Ugradsl.departures
    moves_statistics: ClassVar[bool] = True

    epochs: int = Field(default=5, ge=0)
    p: float = Field(default=0.98, ge=0, le=1)
    alpha: float | None = Field(default=-0.5, le=0)
    beta: float = Field(default=0.2, ge=0, le=1)
    lr: float = Field(default=5e-3, gt=0)
    batch_size: int = Field(default=128, ge=1)
    sample_batch: int = Field(default=16, ge=1)
    ceiling: float = Field(default=10.0, gt=0)
    clip: float = Field(default=1.0, gt=0)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Train on the retained images and the samples together."""
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9)
        samples = forget_stream(data.forget, self.sample_batch, runtime)
        for epoch in range(self.epochs):
            for images in retain_batches(data.retain, model, self.batch_size, runtime, epoch):
                loss = mixed(self, model, next(samples), images)
                runtime.step(loss, optimizer, self.clip)
        return Outcome(model, "all epochs done", {"probability_left": left(model, data)})


def mixed(method: Ugradsl | UgradslPlus, model: Classifier, samples: Batch, images: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of one step, in train mode."""
    model.module.train()
    (x, y), n = images, len(images[0])
    x_f, y_f, _ = samples.part(slice(n))
    h, z = model.features_and_logits(torch.cat([x, x_f]))
    rate = -near(h[n:], h[:n], method.beta) if method.alpha is None else torch.full_like(z[n:, 0], method.alpha)
    ascent = smoothed_cross_entropy(z[n:], y_f, rate) * (cross_entropy(z[n:], y_f) < method.ceiling)
    return method.p * cross_entropy(z[:n], y) - (1 - method.p) * ascent


def left(model: Classifier, data: Data) -> float:
    """Return the mean probability of the forgotten classes on the samples, in eval mode."""
    model.module.eval()
    return probability(logits_of(model, data.forget.x), data.columns)
