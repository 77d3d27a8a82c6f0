"""The retained images of a request: those of the other classes, or unlabelled ones as the original classifies them."""

from __future__ import annotations

from dataclasses import replace

import torch

from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images
from unhot.data.unlabelled import Unlabelled
from unhot.errors import DataError
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

CLASSIFIED = 5_000  # unlabelled images that are classified, at most


def retained_images(
    model: Classifier, source: ImageSource | Unlabelled, columns: list[int], shape: torch.Size, runtime: Runtime
) -> LabelledImages:
    """Leave out the images of classes to forget or forgotten before, so that a whole training set may be passed.

    Args:
        model: The original, in eval mode.
        source: The images. Unlabelled ones get the class that the original classifies them as.
        columns: Output columns of the classes to forget.
        shape: Shape of the inputs (C, H, W) that the samples make.
        runtime: Draws some of the unlabelled images, if there are many, and says how many are used.

    Raises:
        DataError: None is left, or their inputs have another shape.
    """
    if isinstance(source, Unlabelled):
        _check_shape(model, source.images, shape, runtime)
        images = _classified(model, source.images, runtime)
        columns = [*columns, *model.columns(c for c in model.forgotten if c in model.classes)]
    else:
        images = model.align(as_images(source), model.forgotten)
        _check_shape(model, images, shape, runtime)
    kept = images.without(columns)
    if len(kept) == 0:
        raise DataError(f"{images.origin} holds no image of a retained class. Give images of the other classes.")
    if isinstance(source, Unlabelled) and len(kept) < len(images):
        runtime.announce(
            f"Of {len(images)} unlabelled images {len(kept)} are used; the others are classified as a class to forget."
        )
    return kept


def _check_shape(model: Classifier, images: LabelledImages, shape: torch.Size, runtime: Runtime) -> None:
    """Refuse images whose inputs have another shape than those of the samples, looking at the first one."""
    if len(images) and (found := images.inputs(torch.arange(1), model.input, runtime.device).shape[1:]) != shape:
        raise DataError(
            f"The retained images make inputs of {tuple(found)} (channels, height, width), and the samples of "
            f"{tuple(shape)}. Give images of the same size, or pixels as uint8, which are resized."
        )


@torch.no_grad()
def _classified(model: Classifier, images: LabelledImages, runtime: Runtime) -> LabelledImages:
    """Label images with the columns that the model classifies them as."""
    some = images.select(torch.randperm(len(images), generator=runtime.generator("unlabelled"))[:CLASSIFIED])
    batches = some.batches(model.input, runtime.device)
    found = [model.logits(x).argmax(1).cpu() for x, _ in batches]
    return replace(some, y=torch.cat(found), class_names=None)
