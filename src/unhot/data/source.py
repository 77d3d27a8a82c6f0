"""Source: a named data set, or a file or folder of images, as SRC of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from unhot.data import catalogue as datasets
from unhot.data.augment import Augment
from unhot.data.concept import relabelled
from unhot.data.containers.listed import read_contents
from unhot.data.contents import Contents
from unhot.data.images import LabelledImages, Pictures
from unhot.data.named import data_folder, load_named
from unhot.errors import DataError, DataWarning, OptionError, UnknownNameError, shortened, warn
from unhot.records.base import digest
from unhot.records.model import InputSpec

# those of ImageNet, the usual choice for photos of unknown statistics
PHOTO_MEAN, PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FOLDER_AUGMENT = Augment(shift=4)  # no flips: pictures may show letters
PROBED, LARGEST, USUAL = 64, 224, 64  # pictures that are opened; largest and usual size of inputs


@dataclass(frozen=True)
class Source:
    """A data set with its splits.

    Attributes:
        name: Name of the data set or folder.
        train: The train split; None if there is none.
        test: The test split; None if there is none.
        input: The input of a model that is trained on it, if that is known.
        augment: Random changes that preserve the class of its images.
        epochs: Default number of epochs for a small net.
    """

    name: str
    train: LabelledImages | None
    test: LabelledImages | None
    input: InputSpec | None
    augment: Augment
    epochs: int = 30

    @cached_property
    def sha256(self) -> str:
        """The identity of the data set: the content of its splits and how it is augmented, whatever its name."""
        splits = [None if s is None else s.sha256() for s in (self.train, self.test)]
        return digest([*splits, self.augment.shift, self.augment.flip])

    @property
    def test_images(self) -> LabelledImages:
        """The test split, or all images where there are no splits."""
        if self.test is None:
            raise DataError(f"{self.name} has no test split. Put the class folders in a folder named test.")
        return self.test

    @property
    def train_images(self) -> LabelledImages:
        """The train split."""
        if self.train is None:
            raise DataError(f"{self.name} has no train split. Put the class folders in a folder named train.")
        return self.train


def load_source(src: str, data_dir: Path | None = None, download: bool = False, skip_broken: bool = False) -> Source:
    """Find and read a data set.

    Args:
        src: The name of a data set; or a file or folder of any kind that :mod:`unhot.data.containers.listed` lists,
            such as a folder of class folders with or without ``train/`` and ``test/`` above them. A relative path is
            searched in the folder of the named data sets too.
        data_dir: Folder of the named data sets; UNHOT_DATA or a folder in the user's cache if None.
        download: Whether a named data set may be downloaded.
        skip_broken: Decode every image once, and leave out those that cannot be read, with a warning.

    Raises:
        UnknownNameError: It is neither.
        DataError: It is not there or cannot be read.
    """
    if src in datasets:
        named = datasets.get(src)
        train, test = load_named(src, True, data_dir, download), load_named(src, False, data_dir, download)
        return Source(src, train, test, named.input, named.augment, named.epochs)
    return of_contents(read_contents(found_at(src, data_dir)), skip_broken)


def of_contents(contents: Contents, skip_broken: bool = False) -> Source:
    """Make a data set of what was found at a path; see :func:`load_source`.

    Raises:
        DataError: Its images have no classes.
    """
    if not contents.labelled:
        where = "Put the images of each class in a folder named after it, or list them with their labels."
        raise DataError(f"{contents.name} holds no class folders. {where}")
    first, second = contents.train, contents.test if contents.whole is None else contents.whole
    if first is not None and second is not None and first.class_names != second.class_names:
        first, second = _same_classes(contents.name, first, second)
    if skip_broken:
        first, second = (None if i is None else i.without_broken() for i in (first, second))
    return Source(contents.name, first, second, None, FOLDER_AUGMENT)


def found_at(src: str, data_dir: Path | None = None, kind: str = "data set") -> Path:
    """Return the file or folder that SRC of the command line names.

    Args:
        src: A path; a relative one is searched in the folder of the named data sets too.
        data_dir: That folder.
        kind: What it is for, in error messages.

    Raises:
        UnknownNameError: There is none.
    """
    path = Path(src) if Path(src).exists() else data_folder(data_dir) / src
    if not path.exists():
        raise UnknownNameError(kind, src, datasets, f"There is no file or folder {src}.")
    return path


def _same_classes(name: str, train: LabelledImages, test: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Label two splits with the classes of the one that has more: a deleted class may have no train images.

    Raises:
        DataError: Each has a class that the other lacks, as where one is spelt in two ways.
    """
    names, others = train.class_names or (), test.class_names or ()
    more, fewer, lacks = (names, others, "test") if set(names) > set(others) else (others, names, "train")
    missing = [n for n in more if n not in fewer]
    if not set(more) > set(fewer):
        differ = sorted(set(names) ^ set(others))
        raise DataError(f"{name}: train and test have different class folders: {shortened(differ)}. Spell them alike.")
    warn(f"{name}: {lacks} has no images of {shortened(missing)}.", DataWarning)
    return relabelled(train, names, more), relabelled(test, others, more)


def folder_input(images: LabelledImages) -> InputSpec:
    """Return the input of a model for the pictures of a folder, judged by some of them.

    Square pictures of one size of at most 224 pixels keep it; others become 64 by 64. Grey pictures stay grey.
    """
    if not isinstance(images.x, Pictures):
        raise DataError(f"{images.origin}: pictures are needed to tell the size of the inputs.")
    some = [images.x.load(i) for i in range(0, len(images), -(-len(images) // PROBED))]
    sizes = {p.size if isinstance(p, Image.Image) else p.shape[1::-1] for p in some}
    width, height = sizes.pop()
    size = width if not sizes and width == height <= LARGEST else USUAL
    channels = {p.shape[2] if isinstance(p, np.ndarray) else 1 if _is_grey(p) else 3 for p in some}
    if len(channels - {1}) > 1:
        raise DataError(f"{images.origin}: the pictures have {shortened(sorted(channels))} channels. Use one kind.")
    return photo_input(size, max(channels))


def _is_grey(picture: Image.Image) -> bool:
    return picture.mode in ("1", "L", "LA") or picture.mode.startswith("I")


def check_size(size: int) -> None:
    """Refuse an invalid side of inputs.

    Raises:
        OptionError: It is less than one pixel.
    """
    if size < 1:
        raise OptionError(f"The image size must be at least 1 pixel. Got {size}.")


def photo_input(size: int, channels: int = 3) -> InputSpec:
    """Return the input of a model for photos of unknown statistics: square, normalised as for ImageNet."""
    check_size(size)
    mean, std = (PHOTO_MEAN, PHOTO_STD) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
    return InputSpec(height=size, width=size, channels=channels, mean=mean, std=std, resize=size)
