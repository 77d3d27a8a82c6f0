"""Unlabelled: images whose classes nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unhot.data.containers.listed import read_contents
from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images


@dataclass(frozen=True)
class Unlabelled:
    """Images that may be of any class, or of none.

    Attributes:
        images: The images; their labels mean nothing.
    """

    images: LabelledImages


def unlabelled(source: str | Path | Tensor | np.ndarray | ImageSource, skip_broken: bool = False) -> Unlabelled:
    """Return images without their labels.

    Args:
        source: A folder of pictures, or another file or folder of them (:mod:`unhot.data.containers.listed`); a tensor
            (N, C, H, W) or an array, uint8 pixels or floating inputs; or images of any other source, whose labels are
            ignored.
        skip_broken: Leave out files that cannot be read, with a warning, instead of refusing them.

    Raises:
        DataError: There are no images, or some cannot be read.
    """
    if isinstance(source, str | Path):
        contents = read_contents(Path(source))
        images = contents.whole if contents.whole is not None else contents.sampled
    elif isinstance(source, Tensor | np.ndarray):
        images = as_images((source, torch.zeros(len(source), dtype=torch.int64)))
    else:
        images = as_images(source)
    return Unlabelled(images.without_broken() if skip_broken else images)
