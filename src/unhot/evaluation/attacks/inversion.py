"""Model inversion: whether images that are optimised for the forgotten class in a model still show it."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unhot.data.images import pixel_range
from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.stats import proportion
from unhot.records.model import InputSpec


class Inversion(Attack):
    r"""Optimise images, from noise, until their features point to where the class lies.

    The direction is the mean feature of images of the class minus that of all images, so that a cut or a missing output
    does not matter. Minimised is :math:`-\cos(h(x) - \bar h, \mu_f - \bar h) + \lambda\,TV(x)`, by Adam on pixels.
    Reported is the share of these images that the original classifies as the class: for the original itself that is how
    far the attack works, for other models how much of the class can still be drawn from them.

    Attributes:
        images: Number of drawings.
        steps: Steps of Adam.
        lr: Learning rate of Adam, on pixels in 0..1.
        smoothness: Weight of the total variation.

    Source: Fredrikson, Jha, Ristenpart, CCS 2015; total variation as in Mahendran, Vedaldi, CVPR 2015.
    """

    images: int = Field(default=8, ge=1)
    steps: int = Field(default=80, ge=1)
    lr: float = Field(default=0.05, gt=0)
    smoothness: float = Field(default=1.0, ge=0)

    def run(self, case: Case) -> Finding:
        """Attack."""
        if not case.model.same_inputs(case.views.models["original"][0]):
            raise NotMeasurable("the model takes its inputs in another way than the original")
        drawings = case.once(("inversion", self), lambda: [self._draw(case, c) for c in case.views.columns])
        original = case.views.models["original"][0]
        hits = [
            case.views.logits(original, x).argmax(1) == c for c, x in zip(case.views.columns, drawings, strict=True)
        ]
        black, _, scale = pixel_range(cast(InputSpec, case.model.input), drawings[0].device)
        pixels = ((torch.cat(drawings) - black) / scale * 255).round().clamp(0, 255).to(torch.uint8)
        return Finding({"inversion_recognised": proportion(torch.cat(hits))}, pictures={"inversion": pixels})

    def _draw(self, case: Case, column: int) -> Tensor:
        spec = case.model.input
        if spec is None:
            raise NotMeasurable("the model does not say how pixels become its inputs")
        gallery, device = case.gallery(), case.runtime.device
        if not (gallery.y == column).any():
            raise NotMeasurable("no images of a forgotten class to learn from")
        middle = gallery.features.mean(0)
        wanted = (gallery.features[gallery.y == column].mean(0) - middle).to(device)
        middle = middle.to(device)
        model = case.model.trainable(device)
        model.module.eval().requires_grad_(False)
        black, _, scale = pixel_range(spec, device)
        generator = case.runtime.generator("inversion", column)
        pixels = torch.rand((self.images, *spec.shape), generator=generator).mul(0.2).add(0.4).to(device)
        pixels.requires_grad_(True)
        optimizer = torch.optim.Adam([pixels], self.lr)
        for _ in range(self.steps):
            features = model.features(black + pixels * scale)
            roughness = sum(pixels.diff(dim=d).abs().mean() for d in (2, 3))
            loss = -cosine_similarity(features - middle, wanted[None]).mean() + self.smoothness * roughness
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
        return (black + pixels * scale).detach()
