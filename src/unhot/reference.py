"""partial_reference(): a stand-in for a retrained model, where there is no training set to train one on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from unhot.data.augment import Augment
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError, ModelError
from unhot.models.arch import learning_rate
from unhot.models.classifier import Classifier
from unhot.models.layers import nearest_head, weight_layers
from unhot.records.environment import Cost
from unhot.records.model import ClassLabel
from unhot.records.train import TrainRecord
from unhot.runtime import Runtime, usual_precision, usual_settings
from unhot.training import TrainSettings, fit

DEPTH = 1 / 3  # share of the layers before the head that are made new
LARGE = 3_000  # images; fewer take more and smaller steps


@usual_settings()
def partial_reference(
    original: Classifier,
    images: ImageSource,
    classes: Sequence[int | str | ClassLabel],
    *,
    augment: Augment | None = None,
    settings: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> tuple[Classifier, TrainRecord]:
    """Make a stand-in for a retrained model: the original with a fresh last stage, trained on the retained classes.

    The last third of the layers and the head are drawn anew and trained; all before them stay as they are. So a few
    hundred to a few thousand images suffice, which need not be of the training set. What such a model gives away of
    the class is near what a retrained one does, and rather a little more: docs/audit.md has figures.

    Args:
        original: The model before; it must know its ``input``.
        images: Labelled images; those of the forgotten classes are left out.
        classes: The classes that are to be forgotten.
        augment: Augmentation; none if None.
        settings: Fields of :class:`unhot.training.TrainSettings`; the others suit the number of images.
        runtime: Device, seed and progress.

    Returns:
        The model, and a record of how it was trained.

    Raises:
        ModelError: The original has no layers that could be drawn anew, or its input is not known.
        DataError: There are no images of at least two retained classes.
        OptionError: A setting does not fit.
    """
    runtime = replace(runtime or Runtime(), steps=0)
    if original.input is None:
        raise ModelError("How pictures become inputs of this model is not known. Wrap it with input=InputSpec(...).")
    source = as_images(images)
    gone = original.columns([original.label(c) for c in classes])
    kept = original.align(source).without(gone)
    if len(kept.y.unique()) < 2:
        raise DataError(f"{source.origin}: images of at least two retained classes are needed. Give more.")
    model = original.trainable(runtime.device)
    fresh = last_stage(model, kept.inputs(torch.arange(min(2, len(kept))), original.input, runtime.device))
    with runtime.seeded("fresh"):
        for name in fresh:
            if callable(reset := getattr(model.module.get_submodule(name), "reset_parameters", None)):
                reset()
    for name, weight in model.module.named_parameters():
        weight.requires_grad_(name.rpartition(".")[0] in fresh)
    usual = {"epochs": 15, "batch_size": 128} if len(kept) > LARGE else {"epochs": 20, "batch_size": 32}
    fitted = TrainSettings.of(usual | {"lr": learning_rate(original.arch or "")} | (settings or {}))
    runtime.precision = usual_precision(model.module, runtime.device)
    seconds = fit(model, kept, fitted, augment or Augment(), runtime)
    model.module.requires_grad_(True)
    return model, TrainRecord(
        dataset=source.origin,
        input=original.input,
        arch=original.arch or type(original.module).__name__,
        arch_options=original.arch_options,
        excluded=tuple(original.classes[i] for i in gone),
        settings=fitted.model_dump() | {"precision": runtime.precision},
        seed=runtime.seed,
        train_images=len(kept),
        test_accuracy=None,
        fresh=tuple(fresh),
        cost=Cost(seconds=seconds, peak_memory_bytes=runtime.peak_memory_bytes(), steps=runtime.steps),
        weights_sha256=model.sha256(),
        environment=runtime.environment(),
    )


def last_stage(model: Classifier, x: torch.Tensor) -> list[str]:
    """Return the names of the modules with weights from the last third of the layers on, in the order they are called.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).

    Raises:
        ModelError: There are no layers before the head.
    """
    layers = weight_layers(model, x)
    if not math.ceil(DEPTH * len(layers)):
        raise ModelError("The model has no layers before its head, so no part of it can be made new.")
    own = [n for n, m in model.module.named_modules() if n and any(True for _ in m.parameters(recurse=False))]
    with torch.no_grad(), model.recording(own) as seen:
        model.logits(x)
    called = list(seen)
    return called[called.index(nearest_head(layers, DEPTH)[0]) :]
