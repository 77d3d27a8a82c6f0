"""Samples: the few images of the classes to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unhot.data.containers.arrays import of_arrays
from unhot.data.containers.listed import read_contents
from unhot.data.contents import Contents
from unhot.data.dataset import from_dataset, of_loader
from unhot.data.images import LabelledImages, Pictures
from unhot.data.labels import whole_numbers
from unhot.data.matching import find_class, listed
from unhot.errors import DataError, DataWarning, UnknownNameError, shortened, warn
from unhot.records.model import ClassLabel
from unhot.runtime import stream_seed, usual_settings

ENDINGS = frozenset({"zip", "tar", "gz", "tgz", "bz2", "xz", "csv", "tsv", "txt", "npy"})

ImageSource = LabelledImages | tuple[Tensor | np.ndarray, Tensor | np.ndarray] | Dataset[Any] | DataLoader[Any]


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
def draw(
    data: ImageSource, classes: Sequence[int | str], shots: int = 16, seed: int = 0, skip_broken: bool = False
) -> Samples:
    """Draw a few images of each class to forget, without replacement; no other image is decoded.

    Args:
        data: The images of ``unhot.load_named``, tensors or arrays ``(x, y)``, a torch ``Dataset`` or ``DataLoader``.
        classes: The classes, by index or, where the data has class names, by name.
        shots: Number of images of each class.
        seed: The same seed draws the same images on every machine.
        skip_broken: Draw others in place of images that cannot be read, with a warning.

    Raises:
        UnknownNameError: The data has no such class.
        DataError: It has fewer images of the class.
    """
    images = as_images(data)
    classes = listed(classes)
    positions = [class_position(images, c) for c in classes]
    check_once(positions, classes)
    return draw_at(images, positions, shots, seed, skip_broken)


def draw_at(
    images: LabelledImages, positions: Sequence[int], shots: int, seed: int, skip_broken: bool = False
) -> Samples:
    """Draw a few images of each of some labels in ``images.y``, as :func:`draw` does.

    Raises:
        DataError: There are fewer images of a class, or ``shots`` is no number of images.
    """
    if not isinstance(shots, int) or shots < 1:
        raise DataError(f"Asked for {shots!r} images a class. Ask for a whole number of at least 1.")
    chosen = [_draw_class(images, p, shots, seed, skip_broken) for p in positions]
    return Samples(images.select(torch.cat(chosen)), _called(images, positions))


def every(images: LabelledImages, positions: Sequence[int]) -> Samples:
    """Take every image of some labels in ``images.y``."""
    return Samples(images.of(positions), _called(images, positions))


@usual_settings()
def folder(path: str | Path, classes: Sequence[int | str] | None = None, skip_broken: bool = False) -> Samples:
    """Take the images of a folder or a file: images of one class, or of several classes.

    Args:
        path: The folder, archive, list or other file (:mod:`unhot.data.containers.listed`). Without ``classes`` the
            name of a folder without class folders, or the names of its class folders, are those of the classes. Where
            there are splits, the training images are taken.
        classes: The classes, by index or by name: one for images without classes; some of those that there are else.
        skip_broken: Leave out files that cannot be read, with a warning, instead of refusing them.

    Raises:
        DataError: It is missing or empty, holds more classes than it can name, or a file cannot be read.
    """
    wanted = None if classes is None else listed(classes)
    contents = read_contents(Path(path), tuple(map(str, wanted or ())))
    samples = of_contents(contents, wanted)
    return replace(samples, images=samples.images.without_broken()) if skip_broken else samples


def of_contents(contents: Contents, classes: Sequence[int | str] | None) -> Samples:
    """Take the images of some classes of what was found at a path, as :func:`folder` does.

    Raises:
        DataError: They are of one class only, and several are named.
        UnknownNameError: There is no such class.
    """
    images = contents.sampled
    if not contents.labelled:
        found = tuple(classes or (_without_ending(contents.name),))
        if len(found) > 1:
            what = f"{contents.name} is a flat folder, and {len(found)} classes are named."
            raise DataError(f"{what} Make a subfolder for each.")
        first = found[0]
        labels = torch.full((len(images),), first if isinstance(first, int) else 0)
        return Samples(replace(images, y=labels, class_names=None if isinstance(first, int) else (first,)), found)
    names = images.class_names or ()
    known = tuple(map(str, classes or names))
    check_once(known, known)
    if missing := [c for c in known if c not in names]:
        raise UnknownNameError(f"class of {contents.name}:", missing[0], names)
    place = torch.tensor([known.index(n) if n in known else -1 for n in names])
    chosen = images.where(place[images.y] >= 0)
    return Samples(replace(chosen, y=place[chosen.y], class_names=known), known)


def with_digests(samples: Samples, wanted: Sequence[str]) -> Samples:
    """Return those of some samples that have these digests (:meth:`LabelledImages.digests`), in this order.

    Raises:
        DataError: One is not among them.
    """
    place = {digest: i for i, digest in enumerate(samples.images.digests())}
    if missing := [digest for digest in wanted if digest not in place]:
        raise DataError(
            f"{samples.images.origin}: {len(missing)} of {len(wanted)} images are not among those of the class there, "
            f"the first with the digest {missing[0][:12]}. Give the images that the request was carried out with."
        )
    return replace(samples, images=samples.images.select(torch.tensor([place[digest] for digest in wanted])))


def _without_ending(name: str) -> str:
    """Return the name of an archive or a file without what says its kind."""
    while (stem := name.rpartition("."))[2].lower() in ENDINGS and stem[0]:
        name = stem[0]
    return name


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
    if isinstance(data, DataLoader):
        return as_images(of_loader(data))
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor | np.ndarray) for t in data):
        x, y = data[0], torch.as_tensor(data[1])
        if isinstance(x, np.ndarray):
            return of_arrays(x, y.detach().cpu().numpy(), "arrays")
        return LabelledImages(x.detach(), whole_numbers(y, "tensors"), None, "tensors", tuple(range(len(y))))
    known = not isinstance(data, Tensor | np.ndarray | tuple | Mapping | str | bytes)
    if known and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return from_dataset(data)
    found = f"Expected (x, y) tensors or arrays, a torch Dataset or images of unhot, got {type(data).__name__}."
    if hasattr(data, "__iter__") and known:
        found += " It can only be read from front to end: give list(data)."
    raise DataError(found)


def _called(images: LabelledImages, positions: Sequence[int]) -> tuple[int | str, ...]:
    """Return the names of some labels; the labels themselves where there are no names, or several of the same name."""
    names = images.class_names or ()
    return tuple(names[p] if names and names.count(names[p]) == 1 else p for p in positions)


def _draw_class(images: LabelledImages, position: int, shots: int, seed: int, skip_broken: bool) -> Tensor:
    here = (images.y == position).nonzero().flatten()
    generator = torch.Generator().manual_seed(stream_seed(seed, "draw", position))
    order = here[torch.randperm(len(here), generator=generator)] if len(here) >= shots else here
    chosen, broken = order[:shots].tolist(), list[int]()
    while skip_broken and isinstance(images.x, Pictures) and (found := images.x.broken(chosen)):
        broken += found
        chosen = [i for i in order.tolist() if i not in broken][:shots]
    (name,) = _called(images, [position])
    if broken:
        keys = shortened(images.keys[i] for i in broken)
        warn(f"{images.origin}: images of {name!r} that cannot be read are left out: {keys}.", DataWarning)
    if len(chosen) < shots:
        there = f"there are {len(here) - len(broken)}"
        raise DataError(f"{images.origin}: asked for {shots} images of class {name!r}, {there}. Ask for fewer.")
    return torch.tensor(sorted(chosen), dtype=torch.int64)


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
