"""The retained images of a request: those of the other classes, or unlabelled ones as the original classifies them."""

from __future__ import annotations

from dataclasses import replace

import torch

from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images
from unhot.data.unlabelled import Unlabelled
from unhot.errors import DataError
from unhot.methods.parts.batches import at_once
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime

CLASSIFIED = 5_000  # unlabelled images that are classified, at most


def retained_images(
    model: Classifier, source: ImageSource | Unlabelled, columns: list[int], runtime: Runtime
) -> LabelledImages:
    """Leave out the images of classes to forget or forgotten before, so that a whole training set may be passed.

    Args:
        model: The original, in eval mode.
        source: The images. Unlabelled ones get the class that the original classifies them as.
        columns: Output columns of the classes to forget.
        runtime: Draws some of the unlabelled images, if there are many.

    Raises:
        DataError: None is left.
    """
    if isinstance(source, Unlabelled):
        images = _classified(model, source.images, runtime)
        columns = [*columns, *model.columns(c for c in model.forgotten if c in model.classes)]
    else:
        images = model.align(as_images(source), model.forgotten)
    kept = images.without(columns)
    if len(kept) == 0:
        raise DataError(f"{images.origin} holds no image of a retained class. Give images of the other classes.")
    return kept


@torch.no_grad()
def _classified(model: Classifier, images: LabelledImages, runtime: Runtime) -> LabelledImages:
    """Label images with the columns that the model classifies them as."""
    some = images.select(torch.randperm(len(images), generator=runtime.generator("unlabelled"))[:CLASSIFIED])
    batches = some.batches(model.input, runtime.device, at_once(model.input_shape))
    found = [model.logits(x).argmax(1).cpu() for x, _ in batches]
    return replace(some, y=torch.cat(found), class_names=None)
