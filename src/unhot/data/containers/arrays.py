"""NumPy files: npz with images and labels, as of MedMNIST and Keras, and npy with images alone."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unhot.data.bands import NPY, of_array
from unhot.data.contents import Contents
from unhot.data.decoding import THREADS
from unhot.data.formats import guarded
from unhot.data.images import LabelledImages, Pictures
from unhot.data.labels import one_label
from unhot.errors import DataError, DataWarning, shortened, warn

MOST_BYTES = 4 << 30  # of an array in an npz file, which may be compressed
PAIRS = (("images", "labels"), ("x", "y"), ("X", "Y"), ("X", "y"), ("data", "labels"), ("data", "targets"))
SPLITS = ("train", "test", "val")


def is_npz(path: Path) -> bool:
    """Return whether a file is a zip archive of arrays only."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(n.endswith(".npy") and "/" not in n for n in names)


def is_npy(path: Path) -> bool:
    """Return whether a file is an array."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(NPY)) == NPY


def read_npz(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read images and labels by the names of the arrays: ``train_images`` and ``train_labels``, ``x_test``, ``x``.

    Args:
        path: The file.
        wanted: Not used: labels are numbers.

    Raises:
        DataError: The names are others, or the arrays are not images and labels.
    """
    with zipfile.ZipFile(path) as archive:
        if large := [i.filename for i in archive.infolist() if i.file_size > MOST_BYTES]:
            raise DataError(f"{path}: {shortened(large)} has more than {MOST_BYTES:,} bytes. Save it as npy files.")
    with guarded(path, lambda: np.load(path, allow_pickle=False)) as arrays:
        found = {split: pair for split in (*SPLITS, "") if (pair := _pair(split, arrays)) is not None}
        if not found:
            raise DataError(
                f"{path} holds the arrays {shortened(arrays)}. Name them train_images, train_labels, test_images and "
                "test_labels, or images and labels."
            )
        if found.keys() >= {"test", "val"}:
            warn(f"{path}: the split val is left out.", DataWarning)
            del found["val"]
        pairs = {split: guarded(path, partial(_both, arrays, names)) for split, names in found.items()}
    return Contents.of_splits(
        path.name,
        {split: of_arrays(x, y, path.name + f", {split} split" * bool(split)) for split, (x, y) in pairs.items()},
    )


def read_npy(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read the images of one class from an array of images; it is mapped and not read into memory.

    Args:
        path: The file.
        wanted: Not used: the images have no classes.

    Raises:
        DataError: It does not hold images.
    """
    array = guarded(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False))
    if array.ndim < 4 and not (array.ndim == 3 and array.shape[2] > 4):
        raise DataError(f"{path} holds an array of shape {array.shape}. Expected images (N, H, W) or (N, H, W, C).")
    images = of_arrays(array, np.zeros(len(array), np.int64), path.name)
    return Contents(path.name, images, labelled=False)


def of_arrays(x: np.ndarray, y: np.ndarray, origin: str) -> LabelledImages:
    """Make images of arrays.

    Args:
        x: Pixels, uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), the channels on the shortest axis; or inputs of a
            model, floating (N, C, H, W).
        y: Labels (N,) or (N, 1), or one-hot rows (N, K).
        origin: Where the images are from, for messages.

    Raises:
        DataError: Shapes, types or labels do not fit.
    """
    if y.ndim == 0 or len(y) != len(x):
        raise DataError(f"{origin}: {len(x)} images and labels of shape {y.shape}. Give one label an image.")
    flat = y[:, 0] if y.shape[1:] == (1,) else y
    if flat.ndim == 1 and flat.dtype.kind in "iu":
        labels = torch.from_numpy(flat.astype(np.int64))
    else:
        labels = torch.tensor([_number(row, f"{origin}[{i}]") for i, row in enumerate(flat)], dtype=torch.int64)
    keys = tuple(range(len(x)))
    if x.dtype.kind == "f" and x.ndim == 4:
        return LabelledImages(torch.from_numpy(np.ascontiguousarray(x, np.float32)), labels, None, origin, keys)
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape:
        raise DataError(
            f"{origin} holds {x.dtype} of shape {x.shape}. Expected pixels, uint8 (N, H, W) or (N, H, W, C), or "
            "inputs, floating (N, C, H, W)."
        )
    if x.ndim == 4 and x.shape[1] < x.shape[3]:
        x = x.transpose(0, 2, 3, 1)
    if x.ndim == 4 and not x.shape[3] < min(x.shape[1:3]) and x.shape[3] > 4:
        raise DataError(f"{origin}: which axis of the shape {x.shape} holds the channels is not clear. Put them last.")
    mapped = Pictures(lambda i: of_array(np.array(x[i]), f"{origin}[{i}]"), len(x), threads=THREADS)
    return LabelledImages(mapped if isinstance(x, np.memmap) else Pictures.of_array(x), labels, None, origin, keys)


def _both(arrays: Mapping[str, np.ndarray], names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    return arrays[names[0]], arrays[names[1]]


def _number(row: np.ndarray, name: str) -> int:
    found = one_label(row, name)
    if isinstance(found, str):
        raise DataError(f"{name} has the label {found!r}. Labels in arrays are whole numbers from 0.")
    return found


def _pair(split: str, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """Return the names of the images and the labels of a split, if there are both."""
    forms = ("{s}_{k}", "{k}_{s}") if split else ("{k}",)
    pairs = ((form.format(s=split, k=x), form.format(s=split, k=y)) for form in forms for x, y in PAIRS)
    return next((pair for pair in pairs if pair[0] in arrays and pair[1] in arrays), None)
