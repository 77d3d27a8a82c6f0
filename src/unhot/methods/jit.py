r"""JiT: just in time unlearning, by making the output smooth around the samples.

Source: Foster, Fogarty, Schoepf, Dugue, Oztireli, Brintrup: An information theoretic approach to machine unlearning,
TMLR 2025 (arXiv 2402.01401; its first version is Zero-shot machine unlearning at scale via Lipschitz regularization),
and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.linalg import vector_norm

from unhot.methods.base import Data, Method, Outcome, Use
from unhot.methods.parts.batches import forget_stream
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.stopping import Stop, probability
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


class Jit(Method):
    r"""Bring the output on each sample near the outputs on noisy copies of it.

    .. math::
        \min_\theta \operatorname*{mean}_{D_f} \operatorname*{mean}_{\xi \sim N(0, \sigma^2)}
        \frac{\lVert f_\theta(x) - \operatorname{sg} f_\theta(x + \xi) \rVert_2}{\lVert \xi \rVert_2}

    sg stops the gradient, as in the released code. sigma and ``copies`` are the paper's; rate and ``clip`` were chosen
    on classes of Fashion-MNIST and MNIST: after forgetting eight samples the model had forgotten eight others of the
    class, too. Its outputs on distorted copies (:func:`unhot.data.augment.distort`) changed much at every rate: on
    small nets the method harms the other classes. The presets make one pass, at the paper's rates times its batch of
    128.

    Attributes:
        lr: Learning rate of SGD.
        steps: Number of steps.
        batch_size: Samples in a step.
        sigma: Standard deviation of the noise, in units of the model's inputs.
        copies: Noisy copies of each sample in a step.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
        stop_at: Stop when the mean probability of the forgotten classes on a batch is no higher than this.
    """

    name: ClassVar[str] = "jit"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="The norm of the gradient is clipped, since the output on the copies moves with the weights, and "
        "descent towards it can run away to infinity. It stops when the samples are no longer classified as the "
        "class, where paper and code make one pass at a rate chosen for each net.",
        code="Every step is along its own gradient, where there gradients add up from batch to batch. Noise is not "
        "clipped to the range of the batch.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {
        "vgg16": {"sigma": 0.5, "lr": 0.0384, "steps": 4, "clip": 1e9, "stop_at": 0.0},
        "vit": {"sigma": 0.8, "lr": 192.0, "steps": 4, "clip": 1e9, "stop_at": 0.0},
    }

    lr: float = Field(default=0.3, gt=0)
    steps: int = Field(default=64, ge=0)
    batch_size: int = Field(default=128, ge=1)
    sigma: float = Field(default=0.5, gt=0)
    copies: int = Field(default=25, ge=1)
    clip: float = Field(default=0.1, gt=0)
    stop_at: float = Field(default=0.02, ge=0, le=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Smooth until the samples are forgotten, which is checked before every step."""
        optimizer, noise = torch.optim.SGD(model.module.parameters(), self.lr), runtime.generator("noise")
        stop = Stop(self.stop_at, self.steps)
        for x, _, _ in forget_stream(data.forget, self.batch_size, runtime):
            logits = model.logits(x)
            if stop(probability(logits, data.columns)):
                break
            runtime.step(self.slope(model, x, logits, noise), optimizer, self.clip)
        return Outcome(model, stop.reason, {"probability_left": stop.value})

    def slope(self, model: Classifier, x: Tensor, logits: Tensor, noise: torch.Generator) -> Tensor:
        """Return the distance of outputs to those on noisy copies over the length of the noise, mean over both."""
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for _ in range(self.copies):  # one at a time, so that one batch is held
            xi = self.sigma * torch.randn(x.shape, generator=noise).to(x)
            with torch.no_grad():
                moved = model.logits(x + xi)
            total = total + (vector_norm(logits - moved, dim=1) / vector_norm(xi.flatten(1), dim=1)).mean()
        return total / self.copies
