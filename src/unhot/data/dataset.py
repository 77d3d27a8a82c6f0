"""Data sets of others (torch, torchvision, Hugging Face, the user's): read item by item, by one thread, in order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from unhot.data.hugging_face import labels_and_files
from unhot.data.images import LabelledImages, Pictures
from unhot.data.labels import Label, one_label, read_labels
from unhot.errors import DataError, DataWarning, first_line, shortened, warn

IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "target")


def from_dataset(data: Any) -> LabelledImages:
    """Read a data set whose items are indexed: pairs of image and label, or dicts of both.

    An image is a Pillow image, an array of pixels (H, W) or (H, W, C), or a tensor or array (C, H, W), which is not
    changed. A label is a number, a text or a one-hot vector. All transforms of the data set are applied.

    Args:
        data: Anything with ``__getitem__`` and ``__len__``.

    Raises:
        DataError: An item cannot be read or is something else; it is named by its position.
    """
    origin = type(data).__name__
    count = _length(data, origin)
    if (columns := labels_and_files(data, IMAGE_KEYS, LABEL_KEYS, origin)) is not None:
        raw = [one_label(label, f"{origin}[{i}]") for i, label in enumerate(columns[0])]
        y, names = read_labels(raw, class_names(data), origin)
        stored = Pictures(columns[1], count, name=lambda i: f"{origin}[{i}]")
        return LabelledImages(stored, y, names, origin, tuple(range(count)))
    first, _ = _pair(_item(data, 0, origin), f"{origin}[0]")
    known = _labels_of_files(data) if isinstance(first, Image.Image) else None
    if known is not None:
        raw, x = [one_label(label, f"{origin}[{i}]") for i, label in enumerate(known)], None
    else:
        raw, x = _read_all(data, count, origin)
    y, names = read_labels(raw, class_names(data), origin)
    pictures = Pictures(lambda i: _picture(data, i, origin), count, name=lambda i: f"{origin}[{i}]")
    return LabelledImages(pictures if x is None else x, y, names, origin, tuple(range(count)))


def of_loader(loader: DataLoader[Any]) -> Any:
    """Return the data set of a loader; of one that takes some of the items, these.

    Its batches are not used: images are drawn by their position, and put together by unhot.
    """
    data, sampler = loader.dataset, loader.sampler
    if isinstance(data, IterableDataset):
        return data
    if type(sampler) is SubsetRandomSampler:
        data = Subset(data, list(sampler.indices))
    elif type(sampler) not in (SequentialSampler, RandomSampler):
        warn(
            f"The sampler of the DataLoader, {type(sampler).__name__}, is not used: the whole data set is read.",
            DataWarning,
        )
    if loader.collate_fn not in (default_collate, default_convert):
        warn(
            "The collate_fn of the DataLoader is not used: the items of its data set are read as they are.", DataWarning
        )
    return data


def class_names(data: Any) -> tuple[str, ...] | None:
    """Return the names of a data set's classes, where it has any; a part of one has those of the whole."""
    if getattr(data, "target_transform", None) is not None:
        return None  # the names belong to the labels before that transform
    if type(data) is Subset:
        return class_names(data.dataset)
    if type(data) is ConcatDataset:
        found = {class_names(part) for part in data.datasets}
        return found.pop() if len(found) == 1 else None
    names = getattr(data, "classes", None)
    features = getattr(data, "features", None)
    if names is None and isinstance(features, Mapping):
        names = next((getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None)
    if not isinstance(names, Sequence | np.ndarray) or isinstance(names, str) or len(names) == 0:
        return None
    return tuple(map(str, names))


def _length(data: Any, origin: str) -> int:
    try:
        count = len(data)
    except Exception as error:  # whatever the user's code raises
        raise DataError(f"{origin}: its length is not known ({type(error).__name__}: {error}).") from error
    if count == 0:
        raise DataError("The data set is empty.")
    return count


def _item(data: Any, i: int, origin: str) -> Any:
    try:
        return data[i]
    except Exception as error:  # whatever the user's code raises
        raise DataError(f"{origin}: item {i} cannot be read ({type(error).__name__}: {first_line(error)}).") from error


def _pair(item: Any, name: str) -> tuple[Image.Image | Tensor, Any]:
    """Return image and label of an item."""
    if isinstance(item, Mapping):
        return _image(_value(item, IMAGE_KEYS, name), name), _value(item, LABEL_KEYS, name)
    if not isinstance(item, tuple | list):
        raise DataError(f"{name} is {type(item).__name__}. Expected a pair of image and label, or a dict of both.")
    if len(item) != 2:
        raise DataError(f"{name} holds {len(item)} values. Expected two: image and label.")
    return _image(item[0], name), item[1]


def _value(item: Mapping[Any, Any], keys: tuple[str, ...], name: str) -> Any:
    found = [key for key in keys if key in item]
    if len(found) != 1:
        raise DataError(
            f"{name} has {' and '.join(found) if found else f'the keys {shortened(item)}'}. "
            f"Expected one of the keys {', '.join(keys)}: select or rename the columns."
        )
    return item[found[0]]


def _image(image: Any, name: str) -> Image.Image | Tensor:
    if isinstance(image, Image.Image | Tensor):
        return image
    if isinstance(image, np.ndarray):
        last, first = image.ndim == 3 and image.shape[2] in (1, 3), image.ndim == 3 and image.shape[0] in (1, 3)
        if image.dtype == np.uint8 and (image.ndim == 2 or (last and not first)):
            return Image.fromarray(image[:, :, 0] if last and image.shape[2] == 1 else image)
        if first and not last and (image.dtype == np.uint8 or image.dtype.kind == "f"):
            return torch.from_numpy(np.ascontiguousarray(image))
        raise DataError(
            f"{name.partition('[')[0]}: expected pictures or tensors, got ndarray of {image.dtype} and shape "
            f"{image.shape}. Arrays are pixels, uint8 (H, W) or (H, W, 3), or inputs, floating (C, H, W)."
        )
    raise DataError(f"{name.partition('[')[0]}: expected pictures or tensors, got {type(image).__name__}.")


def _picture(data: Any, i: int, origin: str) -> Image.Image:
    image, _ = _pair(_item(data, i, origin), f"{origin}[{i}]")
    if not isinstance(image, Image.Image):
        raise DataError(
            f"{origin}[{i}] is a picture the first time it is read and {type(image).__name__} the "
            "next. Return the same each time."
        )
    return image


def _read_all(data: Any, count: int, origin: str) -> tuple[list[Label], Tensor | None]:
    """Read every item once; return labels, and the tensors (N, C, H, W) where the images are tensors."""
    labels: list[Label] = []
    tensors: list[Tensor] = []
    kinds: dict[str, int] = {}
    for i in range(count):
        name = f"{origin}[{i}]"
        image, label = _pair(_item(data, i, origin), name)
        if isinstance(image, Tensor):
            tensors.append(image.detach())
            kinds.setdefault(f"a tensor of {image.dtype} and shape {tuple(image.shape)}", i)
        else:
            kinds.setdefault("a picture", i)
        if len(kinds) > 1:
            (one, at), (other, here) = kinds.items()
            raise DataError(f"{origin}: item {at} is {one} and item {here} is {other}. Make all of one kind and size.")
        labels.append(one_label(label, name))
    return labels, torch.stack(tensors) if tensors else None


def _labels_of_files(data: Any) -> list[Any] | None:
    """Return the labels of a data set of picture files, where they are certain without decoding any."""
    if type(data) is Subset:
        whole = _labels_of_files(data.dataset)
        return None if whole is None else [whole[i] for i in data.indices]
    folders = getattr(sys.modules.get("torchvision.datasets"), "DatasetFolder", None)
    if folders is None or not isinstance(data, folders) or type(data).__getitem__ is not folders.__getitem__:
        return None
    return None if data.target_transform is not None else [label for _, label in data.samples]
