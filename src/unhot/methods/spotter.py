r"""Spotter: distil the masked original on and around the samples, and scatter their features.

Source: Ha, Park, Yoon: Unlearning's blind spots: over-unlearning and prototypical relearning attack, ICML 2026 (arXiv
2506.01318), and its released code.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn.functional import normalize

from unhot.methods.base import Batch, Data, Method, Outcome, Use
from unhot.methods.parts.ascent import ascended
from unhot.methods.parts.batches import forget_stream, logits_of
from unhot.methods.parts.departures import Departures
from unhot.methods.parts.losses import Request, masked
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime


def dispersion(features: Tensor, y: Tensor) -> Tensor:
    """Return the mean cosine of the features (B, d) of two images of the same class; 0 without such a pair."""
    h = normalize(features)
    pairs = (y[:, None] == y).fill_diagonal_(False)
    return (h @ h.T)[pairs].sum() / pairs.sum().clamp_min(1)


class Spotter(Method):
    r"""Distil the original model with the class masked, on the samples and around them, and scatter their features.

    .. math::
        L = \lambda_1 \operatorname{KL}(\tilde p(x) \Vert p(x)) + (1 - \lambda_1)
        \operatorname{KL}(\tilde p(x') \Vert p(x')) + \lambda_2 \operatorname*{mean}_{i \ne j} \cos(h_i, h_j)

    :math:`\tilde p` is the original's distribution with the classes to forget left out, frozen; :math:`x'` is found
    once, by ascent on the original's cross-entropy within ``epsilon`` of each sample; pairs are of the same class.
    Everything but the listed departures is as in the paper.

    Attributes:
        lr: Learning rate of SGD with momentum 0.9 and weight decay 5e-4.
        steps: Number of steps.
        batch_size: Samples in a step.
        weight: lambda_1, the share of the samples themselves in the distillation.
        scatter: lambda_2, the weight of the features' mean cosine.
        epsilon: Greatest change of a pixel, on a scale of 0..1.
        ascent: Number of steps of the ascent, each a third of ``epsilon`` long.
    """

    name: ClassVar[str] = "spotter"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)
    departures: ClassVar[Departures] = Departures(
        paper="There are 200 steps, not the 390 of 10 passes over 5,000 images, since on 16 samples of classes of "
        "Fashion-MNIST and MNIST neither their probability of the class nor the drift of outputs on distorted copies "
        "of them improved after that.",
        code="`epsilon` is of pixels in 0..1 and x' is kept among images that exist, where the code clamps normalised "
        "images to 0..1. The ascent is on the class itself; the code's, on the runner-up, leads back into the class. "
        "Each sample meets its own x'.",
    )
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {"cifar10": {"steps": 390}}

    lr: float = Field(default=1e-4, gt=0)
    steps: int = Field(default=200, ge=0)
    batch_size: int = Field(default=128, ge=1)
    weight: float = Field(default=0.7, ge=0, le=1)
    scatter: float = Field(default=1.0, ge=0)
    epsilon: float = Field(default=0.03, gt=0, lt=1)
    ascent: int = Field(default=3, ge=1)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Distil and scatter."""
        forget = data.forget
        optimizer = torch.optim.SGD(model.module.parameters(), self.lr, momentum=0.9, weight_decay=5e-4)
        beside = self.neighbours(model, forget, runtime)
        here_and_near = (forget_stream(b, self.batch_size, runtime, self.steps) for b in (forget, beside))
        cosine = 0.0
        for (x, y, teacher), (x_near, _, teacher_near) in zip(*here_and_near, strict=True):  # in the same order
            h, z = model.features_and_logits(x)
            here = masked(z, Request(y, data.columns, teacher))
            near = masked(model.logits(x_near), Request(y, data.columns, teacher_near))
            alike = dispersion(h, y)
            runtime.step(self.weight * here + (1 - self.weight) * near + self.scatter * alike, optimizer)
            cosine = alike.item()
        return Outcome(model, "done", {"feature_cosine": cosine})

    def neighbours(self, model: Classifier, forget: Batch, runtime: Runtime) -> Batch:
        """Find an image near each sample on which the model is less confident of the class."""
        x, y, _ = forget
        near = ascended(model, x, y, self.epsilon, self.epsilon / 3, self.ascent, runtime.generator("neighbours"))
        return Batch(near, y, logits_of(model, near))
