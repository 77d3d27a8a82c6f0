"""Image folders: class folders, trees with train/ and test/, and a flat folder of one class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from unhot.data.decoding import THREADS, check_file, open_picture
from unhot.data.images import LabelledImages, Pictures
from unhot.errors import DataError, DataWarning, shortened, warn
from unhot.escaping import is_unicode

SUFFIXES = frozenset(Image.registered_extensions())


def load_folder(root: Path, split: str | None = None) -> LabelledImages:
    """Read a folder with one subfolder for each class, named after it.

    Args:
        root: The folder; it may hold a ``train`` and a ``test`` folder of class folders instead.
        split: The split to read; with None the class folders must be directly in ``root``.

    Raises:
        DataError: There is no such folder, no class folder, no image, or images that cannot be read.
    """
    folder = check_folder(root)
    if split is not None:
        folder = check_folder(folder / split)
    classes = in_order(subfolders(folder))
    if not classes:
        raise DataError(f"{folder} holds no class folders. Put the images of each class in a folder named after it.")
    if odd := [c.name for c in classes if not is_unicode(c.name)]:
        raise DataError(f"{folder}: the class folders {shortened(odd)} have names that are not UTF-8. Rename them.")
    found = [image_files(c) for c in classes]
    empty = [c for c, files in zip(classes, found, strict=True) if not files]
    if deeper := [c.name for c in empty if subfolders(c)]:
        raise DataError(
            f"{folder}: {shortened(deeper)} holds folders and no images. Give a folder in which each subfolder holds "
            "the images of one class."
        )
    if empty:
        raise DataError(f"{folder}: no images in {shortened(c.name for c in empty)}. Add images, or remove the folder.")
    labels = torch.tensor([i for i, files in enumerate(found) for _ in files])
    images = from_files([f for files in found for f in files], labels, tuple(c.name for c in classes), folder)
    return images if split is None else replace(images, origin=f"{root.resolve().name}, {split} split")


def in_order(folders: Iterable[Path]) -> list[Path]:
    """Sort class folders by name; where all names are numbers, by number: 2 comes before 10."""
    found = sorted(folders)
    return sorted(found, key=lambda p: int(p.name)) if all(p.name.isdecimal() for p in found) else found


def splits_of(root: Path) -> tuple[str, ...]:
    """Return which of ``train`` and ``test`` the folder has."""
    return tuple(s for s in ("train", "test") if (root / s).is_dir())


def train_split(root: Path) -> str | None:
    """Return "train" if the folder holds nothing but splits of class folders, of which that is one."""
    found = {p.name for p in subfolders(root)}
    return "train" if "train" in found <= {"train", "test"} and subfolders(root / "train") else None


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden."""
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]


def from_files(
    files: list[Path], labels: torch.Tensor, class_names: tuple[str, ...] | None, root: Path
) -> LabelledImages:
    """Make images from files and labels int64 (N,); every file is decoded once, so that broken ones are found early.

    Raises:
        DataError: Names the files that cannot be read.
    """
    keys = tuple(str(f.relative_to(root)) for f in files)
    problems, animated = [], []
    for file, key in zip(files, keys, strict=True):
        try:
            frames = check_file(file)
        except DataError as error:
            problems.append((key, str(error)))
        else:
            animated += [key] if frames > 1 else []
    if problems:
        bad, (_, first) = shortened(key for key, _ in problems), problems[0]
        raise DataError(f"{root}: {len(problems)} of {len(files)} files are not readable images: {bad}. {first}")
    if animated:
        warn(
            f"{root}: of pictures with several frames the first is used: {shortened(animated)}.",
            DataWarning,
        )
    pictures = Pictures(
        load=lambda i: open_picture(files[i]),
        count=len(files),
        name=lambda i: str(files[i]),
        threads=THREADS,
        file=files.__getitem__,
    )
    return LabelledImages(pictures, labels, class_names, root.name, keys)


def image_files(folder: Path) -> list[Path]:
    """Return the files of a folder whose ending is that of an image, by name."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in found if p.is_file())


def check_folder(folder: Path) -> Path:
    """Return the folder if it is one.

    Raises:
        DataError: It is not.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Check the path.")
    return folder
