r"""Retrain: the same architecture, trained from scratch on the retained images: the reference of all methods."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field, JsonValue
from torch import nn

from unhot.data import catalogue as datasets
from unhot.data.augment import Augment
from unhot.data.source import Source
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.graph import GraphNet
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.training import complete, fit


class Retrain(Method):
    r"""Draw all weights anew, and minimise the cross-entropy on the retained images by :func:`unhot.training.fit`.

    No old weight is kept. A built-in net, and any net whose code was run to load it, is built anew. In any other every
    layer is reset by its own ``reset_parameters``. A parameter that no layer resets, such as a position embedding, is
    drawn from a normal distribution of standard deviation 0.02, as for vision transformers; a vector is set to 1, or
    to 0 if it is named a bias. The names of these are noted. Buffers that no layer resets are kept as constants of the
    architecture. With the options, the seed and the precision of ``unhot train``, and all images of its data set, the
    weights are those of ``unhot train --exclude-class``; presets hold its settings for each data set. The outputs of
    the forgotten classes stay, and are never a label.

    Attributes:
        epochs: Passes over the retained images.
        batch_size: Images in a step; 256, or 64 where there are no more than 5,000 images, if None.
        lr: Highest learning rate of the one-cycle schedule of SGD; the architecture's own if None.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty on all weights.
        clip: Maximum norm of the gradient; a longer one is scaled down to it.
        shift: Farthest random shift of the images, in pixels.
        flip: Whether left and right may be swapped at random.

    Source: exact unlearning by definition: Cao, Yang: Towards making systems forget with machine unlearning, IEEE S&P
    2015. The recipe is that of ``unhot train``.
    """

    name: ClassVar[str] = "retrain"
    uses: ClassVar[tuple[Use, ...]] = ("retain",)
    moves_statistics: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, JsonValue]]] = {
        name: {"epochs": found.epochs, "shift": found.augment.shift, "flip": found.augment.flip}
        for name, found in ((name, datasets.get(name)) for name in datasets.builtin)
    }

    epochs: int = Field(default=10, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip: float = Field(default=5.0, gt=0)
    shift: int = Field(default=0, ge=0)
    flip: bool = False

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        """Forget everything, and learn the retained images."""
        images, augment = data.retain, Augment(self.shift, self.flip)
        x = images.inputs(torch.arange(1), model.input, runtime.device)
        given = self.model_dump(exclude={"shift", "flip"}, exclude_none=True)
        settings = complete(given, Source("retained images", images, None, model.input, augment), model.arch or "")
        fitted = replace(model, input=model.input or as_it_is(x))
        unowned = draw_anew(fitted, runtime)
        fit(fitted, images, settings, augment, runtime)
        return Outcome(model, "all epochs done", {"not_reset_by_a_layer": list[JsonValue](unowned)})


@torch.no_grad()
def draw_anew(model: Classifier, runtime: Runtime) -> list[str]:
    """Draw all weights of a net anew, in place.

    Returns:
        The names of the parameters for which neither the architecture nor their layer says how.
    """
    for weight in model.module.parameters():
        weight.fill_(torch.nan)  # to find what is not drawn anew, whatever layer it is in
    with runtime.seeded("reset"):
        for layer in reversed(list(model.module.modules())):  # outer layers last, as when they are made
            for name in ("reset_parameters", "_reset_parameters"):  # attention has only the second
                if callable(reset := getattr(layer, name, None)):
                    reset()
    if model.arch is not None and not isinstance(model.module, GraphNet):  # whose code is not to be run
        with runtime.seeded("init"):
            built = dict(build(model.arch, model.outputs, model.input, model.arch_options).named_parameters())
        for name, weight in model.module.named_parameters():
            if name in built and built[name].shape == weight.shape:  # not a head whose classes were excised
                weight.copy_(built[name])
    unowned = {n: w for n, w in model.module.named_parameters() if w.isnan().any()}
    with runtime.seeded("unowned"):
        for name, weight in unowned.items():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return list(unowned)


def as_it_is(x: torch.Tensor) -> InputSpec:
    """Describe inputs (B, C, H, W) of a model without preprocessing: pixels scaled to 0..1, not normalised."""
    _, channels, height, width = x.shape
    return InputSpec.model_validate(
        {"height": height, "width": width, "channels": channels, "mean": [0.0] * channels, "std": [1.0] * channels}
    )
