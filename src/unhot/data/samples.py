"""Samples: the few images of the classes to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unhot.data.dataset import from_dataset
from unhot.data.folder import check_folder, from_files, image_files, load_folder, subfolders, train_split
from unhot.data.images import LabelledImages
from unhot.data.labels import whole_numbers
from unhot.data.matching import find_class, listed
from unhot.errors import DataError, DataWarning, UnknownNameError, shortened, warn
from unhot.records.model import ClassLabel
from unhot.runtime import stream_seed, usual_settings

ImageSource = LabelledImages | tuple[Tensor, Tensor] | Dataset[Any]


@dataclass(frozen=True)
class Samples:
    """The images of the classes to forget.

    Attributes:
        images: The images, each labelled with its class.
        classes: The classes, in the order of the request: by name, or by index where the images have no class names.
        part: Name of the part of their classes that the samples show, if only that is to be forgotten and the other
            images of these classes are retained. None if whole classes are to be forgotten.
    """

    images: LabelledImages
    classes: tuple[int | str, ...]
    part: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def positions(self) -> tuple[int, ...]:
        """The label of each class in ``images.y``."""
        names = self.images.class_names or ()
        return tuple(
            names.index(str(c)) if names.count(str(c)) == 1 and isinstance(c, str) else class_position(self.images, c)
            for c in self.classes
        )


@usual_settings()
def draw(data: ImageSource, classes: Sequence[int | str], shots: int = 16, seed: int = 0) -> Samples:
    """Draw a few images of each class to forget, without replacement.

    Args:
        data: The images of ``unhot.load_named``, tensors ``(x, y)``, or a torch ``Dataset``.
        classes: The classes, by index or, where the data has class names, by name.
        shots: Number of images of each class.
        seed: The same seed draws the same images on every machine.

    Raises:
        UnknownNameError: The data has no such class.
        DataError: It has fewer images of the class.
    """
    images = as_images(data)
    classes = listed(classes)
    positions = [class_position(images, c) for c in classes]
    check_once(positions, classes)
    return draw_at(images, positions, shots, seed)


def draw_at(images: LabelledImages, positions: Sequence[int], shots: int, seed: int) -> Samples:
    """Draw a few images of each of some labels in ``images.y``, as :func:`draw` does.

    Raises:
        DataError: There are fewer images of a class, or ``shots`` is no number of images.
    """
    if not isinstance(shots, int) or shots < 1:
        raise DataError(f"Asked for {shots!r} images a class. Ask for a whole number of at least 1.")
    chosen = [_draw_class(images, p, shots, seed) for p in positions]
    return Samples(images.select(torch.cat(chosen)), _called(images, positions))


def every(images: LabelledImages, positions: Sequence[int]) -> Samples:
    """Take every image of some labels in ``images.y``."""
    return Samples(images.of(positions), _called(images, positions))


@usual_settings()
def folder(path: str | Path, classes: Sequence[int | str] | None = None) -> Samples:
    """Take the images of a folder: images of one class, or one subfolder for each class.

    Args:
        path: The folder. Without ``classes`` its name, or the names of its subfolders, are those of the classes. Of a
            folder that holds class folders in ``train`` and ``test``, the images in ``train`` are taken.
        classes: The classes, by index or by name: one for a flat folder; some of the subfolders else.

    Raises:
        DataError: The folder is missing or empty, holds a file that is not an image, or more classes than it can name.
    """
    root = check_folder(Path(path))
    classes = None if classes is None else listed(classes)
    split = train_split(root)
    if split is not None:
        warn(f"{root} has splits. Samples are taken from {root / split}.", DataWarning)
    flat = image_files(root)
    nested = subfolders(root)
    if flat and nested:
        raise DataError(f"{root} holds both images and folders. Keep one of the two.")
    if nested:
        images = load_folder(root, split)
        names = images.class_names or ()
        wanted = tuple(map(str, classes or names))
        check_once(wanted, wanted)
        if missing := [c for c in wanted if c not in names]:
            raise UnknownNameError(f"class folder in {root}:", missing[0], names)
        place = torch.tensor([wanted.index(n) if n in wanted else -1 for n in names])
        found = images.where(place[images.y] >= 0)
        return Samples(replace(found, y=place[found.y], class_names=wanted), wanted)
    if not flat:
        raise DataError(f"{root} holds no images. Put the images of the class to forget in it.")
    classes = tuple(classes or (root.resolve().name,))
    if len(classes) > 1:
        raise DataError(f"{root} is a flat folder, and {len(classes)} classes are named. Make a subfolder for each.")
    first = classes[0]
    labels = torch.full((len(flat),), first if isinstance(first, int) else 0)
    return Samples(from_files(flat, labels, None if isinstance(first, int) else (first,), root), classes)


def check_once(found: Sequence[object], classes: Sequence[int | str]) -> None:
    """Refuse a class that is named twice.

    Args:
        found: The class of each name.
        classes: The names.

    Raises:
        DataError: Two names mean one class.
    """
    if len(set(found)) < len(found):
        raise DataError(f"A class is named twice: {shortened(classes)}. Name each class once.")


def as_images(data: ImageSource) -> LabelledImages:
    """Return the images of any source that a caller may pass.

    Raises:
        DataError: The source is of another kind.
    """
    if isinstance(data, LabelledImages):
        return data
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
        x, y = data
        return LabelledImages(x.detach(), whole_numbers(y, "tensors"), None, "tensors", tuple(range(len(y))))
    known = not isinstance(data, Tensor | np.ndarray | tuple | Mapping | str | bytes)
    if known and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return from_dataset(data)
    found = f"Expected (x, y) tensors, a torch Dataset or images of unhot, got {type(data).__name__}."
    if hasattr(data, "__iter__") and known:
        found += " It can only be read from front to end: give the data set of a DataLoader, or list(data)."
    raise DataError(found)


def _called(images: LabelledImages, positions: Sequence[int]) -> tuple[int | str, ...]:
    """Return the names of some labels; the labels themselves where there are no names, or several of the same name."""
    names = images.class_names or ()
    return tuple(names[p] if names and names.count(names[p]) == 1 else p for p in positions)


def _draw_class(images: LabelledImages, position: int, shots: int, seed: int) -> Tensor:
    here = (images.y == position).nonzero().flatten()
    if len(here) < shots:
        (name,) = _called(images, [position])
        raise DataError(
            f"{images.origin}: asked for {shots} images of class {name!r}, there are {len(here)}. Ask for fewer."
        )
    generator = torch.Generator().manual_seed(stream_seed(seed, "draw", position))
    return here[torch.randperm(len(here), generator=generator)[:shots]].sort().values


def class_position(images: LabelledImages, label: int | str) -> int:
    """Return the label in ``images.y`` of a class given by name or by index.

    Raises:
        UnknownNameError: There is no such class.
    """
    if len(images) == 0:
        raise DataError(f"{images.origin}: there are no images.")
    names = images.class_names
    known = {i: str(i) for i in images.y.unique().tolist()} if names is None else dict(enumerate(names))
    classes = [ClassLabel(index=i, name=n) for i, n in known.items() if i >= 0]
    return classes[find_class(label, classes)].index
