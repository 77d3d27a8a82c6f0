"""Source: a named data set or a folder, as SRC of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from unhot.data import catalogue as datasets
from unhot.data.augment import Augment
from unhot.data.concept import relabelled
from unhot.data.folder import load_folder, splits_of
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


def load_source(src: str, data_dir: Path | None = None, download: bool = False) -> Source:
    """Find and read a data set.

    Args:
        src: The name of a data set, or a folder of class folders with or without ``train/`` and ``test/`` above them;
            a relative path is searched in the folder of the named data sets too.
        data_dir: Folder of the named data sets; UNHOT_DATA or a folder in the user's cache if None.
        download: Whether a named data set may be downloaded.

    Raises:
        UnknownNameError: It is neither.
        DataError: It is not there or cannot be read.
    """
    if src in datasets:
        named = datasets.get(src)
        train, test = load_named(src, True, data_dir, download), load_named(src, False, data_dir, download)
        return Source(src, train, test, named.input, named.augment, named.epochs)
    root = Path(src) if Path(src).is_dir() else data_folder(data_dir) / src
    if Path(src).is_file():
        raise DataError(f"{src} is a file. Give a folder of class folders, or the name of a data set.")
    if not root.is_dir():
        raise UnknownNameError("data set", src, datasets, f"There is no folder {src}.")
    found = splits_of(root)
    if not found:
        return Source(root.resolve().name, None, load_folder(root), None, FOLDER_AUGMENT)
    first = load_folder(root, "train") if "train" in found else None
    second = load_folder(root, "test") if "test" in found else None
    if first is not None and second is not None and first.class_names != second.class_names:
        first, second = _same_classes(root, first, second)
    return Source(root.resolve().name, first, second, None, FOLDER_AUGMENT)


def _same_classes(root: Path, train: LabelledImages, test: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Label two splits with the classes of the one that has more: a deleted class may have no train images.

    Raises:
        DataError: Each has a class that the other lacks, as where one is spelt in two ways.
    """
    names, others = train.class_names or (), test.class_names or ()
    more, fewer, lacks = (names, others, "test") if set(names) > set(others) else (others, names, "train")
    missing = [n for n in more if n not in fewer]
    if not set(more) > set(fewer):
        differ = sorted(set(names) ^ set(others))
        raise DataError(f"{root}: train and test have different class folders: {shortened(differ)}. Spell them alike.")
    warn(f"{root}: {lacks} has no images of {shortened(missing)}.", DataWarning)
    return relabelled(train, names, more), relabelled(test, others, more)


def folder_input(images: LabelledImages) -> InputSpec:
    """Return the input of a model for the pictures of a folder, judged by some of them.

    Square pictures of one size of at most 224 pixels keep it; others become 64 by 64. Grey pictures stay grey.
    """
    if not isinstance(images.x, Pictures):
        raise DataError(f"{images.origin}: pictures are needed to tell the size of the inputs.")
    some = [images.x.load(i) for i in range(0, len(images), -(-len(images) // PROBED))]
    sizes = {p.size for p in some}
    width, height = sizes.pop()
    size = width if not sizes and width == height <= LARGEST else USUAL
    return photo_input(
        size, channels=1 if all(p.mode in ("1", "L", "LA") or p.mode.startswith("I") for p in some) else 3
    )


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
    mean, std = ((0.5,), (0.25,)) if channels == 1 else (PHOTO_MEAN, PHOTO_STD)
    return InputSpec(height=size, width=size, channels=1 if channels == 1 else 3, mean=mean, std=std, resize=size)
