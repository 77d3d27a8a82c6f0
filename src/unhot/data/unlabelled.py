"""Unlabelled: images whose classes nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unhot.data.folder import check_folder, from_files, image_files
from unhot.data.images import LabelledImages
from unhot.data.samples import ImageSource, as_images
from unhot.errors import DataError


@dataclass(frozen=True)
class Unlabelled:
    """Images that may be of any class, or of none.

    Attributes:
        images: The images; their labels mean nothing.
    """

    images: LabelledImages


def unlabelled(source: str | Path | Tensor | ImageSource) -> Unlabelled:
    """Return images without their labels.

    Args:
        source: A folder of pictures; a tensor (N, C, H, W), uint8 pixels or floating inputs; or images of any other
            source, whose labels are ignored.

    Raises:
        DataError: There are no images, or some cannot be read.
    """
    if isinstance(source, str | Path):
        folder = check_folder(Path(source))
        files = image_files(folder)
        if not files:
            raise DataError(f"{folder} holds no images. Give a folder of pictures.")
        return Unlabelled(from_files(files, torch.zeros(len(files), dtype=torch.int64), None, folder))
    if isinstance(source, Tensor | np.ndarray):
        x = torch.as_tensor(source).detach()
        return Unlabelled(as_images((x, torch.zeros(len(x), dtype=torch.int64))))
    return Unlabelled(as_images(source))
