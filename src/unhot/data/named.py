"""The named data sets, read by torchvision and scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from unhot.data import catalogue as datasets
from unhot.data.augment import Augment
from unhot.data.formats import guarded, md5, read_idx, read_mat, read_once, read_pickled
from unhot.data.images import LabelledImages, Pictures
from unhot.errors import DataError, DataWarning, shortened, warn
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops

NUMERALS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class Split(NamedTuple):
    """One split: uint8 images (N, H, W) or (N, H, W, 3), labels (N,), class names."""

    pixels: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class NamedSet:
    """A named data set.

    Attributes:
        read: Reads the train (True) or test split from a folder, downloading it if that is allowed.
        input: The input of a model that is trained on it.
        augment: Random changes that preserve the class of its images.
        epochs: Default number of epochs for a small net.
    """

    read: Callable[[bool, Path, bool], Split]
    input: InputSpec
    augment: Augment
    epochs: int


def load_named(name: str, train: bool, root: Path | None = None, download: bool = False) -> LabelledImages:
    """Read one split of a named data set.

    Args:
        name: A name of ``unhot list datasets``.
        train: Whether to read the train split instead of the test split.
        root: Folder of the data sets; UNHOT_DATA or a folder in the user's cache if None.
        download: Whether it may be downloaded when it is not there.

    Raises:
        UnknownNameError: There is no such data set.
        DataError: It is missing, damaged, or another data set.
    """
    folder = data_folder(root)
    split = datasets.get(name).read(train, folder, download)
    _check(split, f"{name!r} in {folder}")
    return LabelledImages(
        x=Pictures.of_array(split.pixels),
        y=torch.from_numpy(split.labels.astype(np.int64)),
        class_names=split.class_names,
        origin=f"{name}, {'train' if train else 'test'} split",
        keys=tuple(range(len(split.labels))),
    )


def data_folder(root: Path | None = None) -> Path:
    """Return the folder of the data sets: ``root``, else UNHOT_DATA, else a folder in the user's cache."""
    return root or Path(os.environ.get("UNHOT_DATA") or Path.home() / ".cache" / "unhot" / "data")


def _digits(train: bool, root: Path, download: bool) -> Split:
    """Every fifth image is a test image: scikit-learn does not split the set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = (np.arange(len(bunch.target)) % 5 == 4) != train
    pixels = np.round(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    return Split(pixels, bunch.target[chosen], NUMERALS)


def _check(split: Split, name: str) -> None:
    """Refuse a split that is not images with labels of its classes.

    Raises:
        DataError: Shapes, types or labels do not fit.
    """
    pixels, labels, names = split
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or 0 in pixels.shape or pixels.shape[3:] not in ((), (3,)):
        raise DataError(f"The data set {name} holds {pixels.dtype} of shape {pixels.shape}, not images. Get it again.")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"The data set {name} has {labels.dtype} labels of shape {labels.shape} for {len(pixels)} images. "
            "Get it again."
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise DataError(
            f"The data set {name} has labels from {labels.min()} to {labels.max()} for {len(names)} classes. "
            "Get it again."
        )


def _find(name: str, files: Sequence[Path], folder: Path, get: Callable[[], object] | None) -> None:
    """Make sure that the files of a data set are there.

    Raises:
        DataError: They are not, and ``get``, which downloads them, is None or fails.
    """
    if all(file.exists() for file in files):
        return
    if get is None:
        raise DataError(
            f"The data set {name!r} is not in {folder}. Name its folder with --data-dir or UNHOT_DATA, "
            "or let it be downloaded with --download."
        )
    try:
        get()
    except Exception as error:  # of the network, the server, the archive and the disk
        raise DataError(f"The data set {name!r} could not be downloaded to {folder} ({error}).") from error


def _idx(name: str, family: str, class_names: tuple[str, ...]) -> Callable[[bool, Path, bool], Split]:
    def read(train: bool, root: Path, download: bool) -> Split:
        files = [
            root / family / "raw" / f"{'train' if train else 't10k'}-{k}-ubyte" for k in ("images-idx3", "labels-idx1")
        ]
        _find(name, files, root, (lambda: getattr(_torchvision(), family)(root, download=True)) if download else None)
        pixels, labels = map(read_idx, files)
        return Split(pixels, labels, class_names)

    return read


def _svhn(train: bool, root: Path, download: bool) -> Split:
    split = "train" if train else "test"
    file = root / f"{split}_32x32.mat"
    _find("svhn", [file], root, (lambda: _torchvision().SVHN(root, split, download=True)) if download else None)
    pixels, labels = read_mat(file, ("X", "y"))
    if pixels.ndim != 4 or labels.size != pixels.shape[3] or labels.dtype.kind not in "iu":
        raise DataError(f"{file} does not hold the images and labels of SVHN. Get it again.")
    places = labels.reshape(-1).astype(np.int64)
    return Split(pixels.transpose(3, 0, 1, 2).copy(), np.where(places == 10, 0, places), NUMERALS)


def _cifar(name: str, family: str, label_key: str) -> Callable[[bool, Path, bool], Split]:
    def read(train: bool, root: Path, download: bool) -> Split:
        torchvision_ops.prepare()
        from torchvision.datasets.utils import download_and_extract_archive

        published = getattr(_torchvision(), family)
        folder, meta = root / published.base_folder, published.meta
        batches = published.train_list if train else published.test_list
        sums = {folder / file: known for file, known in (*batches, (meta["filename"], meta["md5"]))}

        def get() -> None:
            download_and_extract_archive(published.url, root, filename=published.filename, md5=published.tgz_md5)

        _find(name, list(sums), root, get if download else None)
        contents = {file: read_once(file) for file in sums}
        if changed := [file.name for file, known in sums.items() if md5(contents[file]) != known]:
            warn(f"{name}: {shortened(changed)} in {folder} differ from those published.", DataWarning)
        *parts, names = (read_pickled(contents[file], file) for file in sums)
        pixels, labels = zip(
            *(_batch(part, label_key, file) for part, file in zip(parts, sums, strict=False)), strict=True
        )
        return Split(
            np.concatenate(pixels), np.concatenate(labels), _texts(names.get(meta["key"]), folder / meta["filename"])
        )

    return read


def _batch(content: dict[str, Any], label_key: str, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 32, 32, 3) and labels (N,) of one file."""
    pixels, labels = content.get("data"), guarded(file, lambda: np.asarray(content[label_key]))
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise DataError(f"{file} does not hold images of 32 by 32 pixels. Get it again.")
    if labels.shape != pixels.shape[:1]:
        raise DataError(f"{file} has {len(pixels)} images and labels of shape {labels.shape}. Get it again.")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _texts(names: object, file: Path) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise DataError(f"{file} does not hold the names of the classes. Get it again.")
    return tuple(names)


def _torchvision() -> Any:
    torchvision_ops.prepare()
    from torchvision import datasets as published

    return published


def _grey(size: int, mean: float, std: float) -> InputSpec:
    return InputSpec(height=size, width=size, channels=1, mean=(mean,), std=(std,), resize=size)


def _colour(mean: tuple[float, ...], std: tuple[float, ...]) -> InputSpec:
    return InputSpec(height=32, width=32, channels=3, mean=mean, std=std, resize=32)


# means and standard deviations of the train splits; digits are doubled in size so that nets with a stem fit. Their
# deviation is 0.319: 0.337 does as well, and the committed records were made with it
DIGITS = NamedSet(_digits, _grey(16, 0.305, 0.337), Augment(shift=1), 30)
MNIST = NamedSet(_idx("mnist", "MNIST", NUMERALS), _grey(28, 0.1307, 0.3081), Augment(shift=2), 6)
FASHION_MNIST = NamedSet(
    _idx("fashion-mnist", "FashionMNIST", CLOTHES), _grey(28, 0.2860, 0.3530), Augment(shift=2, flip=True), 8
)
SVHN = NamedSet(_svhn, _colour((0.438, 0.444, 0.473), (0.198, 0.201, 0.197)), Augment(shift=2), 10)
CIFAR10 = NamedSet(
    _cifar("cifar10", "CIFAR10", "labels"),
    _colour((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    Augment(shift=4, flip=True),
    18,
)
CIFAR100 = NamedSet(
    _cifar("cifar100", "CIFAR100", "fine_labels"),
    _colour((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    Augment(shift=4, flip=True),
    18,
)
