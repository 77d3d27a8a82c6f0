"""The cache: a file that keeps the inverted images of one model, so that the next request need not make them again.

It holds images of all classes, those to be forgotten too: delete it when the last request for a model is done.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from unhot.errors import InputError
from unhot.files import write_atomic
from unhot.methods.parts.work import halvings
from unhot.models.weights import read_tensors
from unhot.records.inversion import InversionInfo

METADATA = "unhot_inverted"


def read(path: Path, wanted: InversionInfo, shape: tuple[int, ...]) -> Tensor:
    """Return the images of a cache, (N, C, H, W), float16.

    Args:
        path: The file.
        wanted: What the images must be. There may be more of them, or a half, a quarter or an eighth, as where the time
            sufficed for no more.
        shape: Shape of one, (C, H, W).

    Raises:
        InputError: The file is damaged, or its images were made of another model or in another way.
    """
    if path.is_dir():
        raise InputError(f"The cache {path} is a folder. Name a file.")
    try:
        metadata, tensors = read_tensors(path)
    except Exception as error:  # of an unknown number type it raises a KeyError
        raise InputError(f"{path} is not a readable safetensors file ({error}). Name another cache.") from error
    if METADATA not in metadata:
        raise InputError(f"{path} is not a cache of inverted images. Name another file.")
    found = InversionInfo.parse(metadata[METADATA], str(path))
    if found.model_sha256 != wanted.model_sha256:
        raise InputError(f"The images of {path} were inverted from another model. Name another cache for this one.")
    enough = found.images >= wanted.images or found.images in halvings(wanted.images)
    if found.descent != wanted.descent or not enough:
        raise InputError(
            f"The cache {path} holds {found.images} images of {found.descent} steps; {wanted.images} images of "
            f"{wanted.descent} steps are asked for. Name another cache, or delete this one."
        )
    images = tensors.get("images", torch.empty(0))
    if tuple(images.shape) != (found.images, *shape) or images.dtype != torch.float16 or not images.isfinite().all():
        raise InputError(f"The cache {path} is damaged. Delete it, and it is made again.")
    return images[: wanted.images]


def write(path: Path, info: InversionInfo, images: Tensor) -> None:
    """Keep images (N, C, H, W), float16.

    Raises:
        OutputError: The disk is full, or the folder cannot be written to.
    """
    write_atomic(path, save({"images": images.cpu().contiguous()}, {METADATA: info.to_json()}))
