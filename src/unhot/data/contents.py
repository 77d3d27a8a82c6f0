"""Contents: the images that were found at a path, split by split; and how the folders of a tree become classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from unhot.data.images import LabelledImages
from unhot.data.tree import FileTree, joined
from unhot.errors import DataError, DataWarning, shortened, warn
from unhot.escaping import is_unicode

MOST_CLASSES = 2**19
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
}


@dataclass(frozen=True)
class Contents:
    """Images that were found at a path.

    Attributes:
        name: Name of the place, in short.
        whole: All images, where there are no splits.
        train: The train split; None if there is none.
        test: The test split, or the validation split where there is no other; None if there is neither.
        labelled: Whether they have classes. Images without classes are in ``whole``, and their labels mean nothing.
    """

    name: str
    whole: LabelledImages | None = None
    train: LabelledImages | None = None
    test: LabelledImages | None = None
    labelled: bool = True

    @classmethod
    def of_splits(cls, name: str, found: Mapping[str, LabelledImages]) -> Contents:
        """Take the splits by their names, such as train and validation, in any spelling; others are left out and said.

        Args:
            name: Name of the place.
            found: The images of each split. A single one of another name, or of none, is the whole. Classes without
                names are called by their numbers, as class folders would be.

        Raises:
            DataError: None of several splits is one that is known, or a number is too large to be that of a class.
        """
        found = _numbers_as_names(name, found)
        if len(found) == 1 and split_named(next(iter(found))) is None:
            return cls(name, next(iter(found.values())))
        known = {split_named(split): images for split, images in found.items()}
        test = known.get("test", known.get("validation"))
        used = [images for images in (known.get("train"), test) if images is not None]
        if not used:
            raise DataError(
                f"{name} has the splits {shortened(found)}, none of which is train or test. Rename them "
                "to train and test."
            )
        if unused := [split for split, images in found.items() if all(images is not u for u in used)]:
            warn(f"{name}: the split {shortened(unused)} is left out.", DataWarning)
        return cls(name, None, known.get("train"), test)

    @cached_property
    def sampled(self) -> LabelledImages:
        """The images from which samples are taken: the train split, where there are splits, which is said."""
        if self.whole is not None:
            return self.whole
        images = self.train if self.train is not None else self.test
        if images is None:
            raise DataError(f"{self.name} holds no images. Put the images of the class to forget in it.")
        if self.test is not None:
            warn(f"{self.name} has splits. Samples are taken from {images.origin}.", DataWarning)
        return images


def split_named(name: str) -> str | None:
    """Return which split a name means: train, test or validation; None for any other name."""
    return SPLITS.get(name.lower())


def of_tree(tree: FileTree, wanted: Sequence[str] = ()) -> Contents:
    """Read class folders, with or without splits above them; or pictures without any folder, which have no classes.

    A folder that holds nothing but one folder, as many archives do, is gone through.

    Args:
        tree: The tree.
        wanted: Names of classes; a folder of such a name is never gone through.

    Raises:
        DataError: There is neither a class folder nor a picture, or the folders cannot be told apart.
    """
    top = _top(tree, wanted)
    place = f"{tree.root}/{top}" if top else str(tree.root)
    folders, flat = tree.subfolders(top), tree.direct(top)
    full = [f for f in folders if tree.below(joined(top, f))]
    if flat and full:
        raise DataError(f"{place} holds both images and folders. Keep one of the two.")
    if flat or not folders:
        if not flat:
            raise DataError(f"{place} holds no images. Put the images of each class in a folder named after it.")
        tree.say_left_out()
        y = torch.zeros(len(flat), dtype=torch.int64)
        return Contents(_name(tree), tree.images(flat, y, None, top, _name(tree)), labelled=False)
    splits = [f for f in folders if split_named(f)]
    others = [f for f in full if f not in splits]
    nested = [f for f in splits if not tree.direct(joined(top, f))]
    if nested and others:
        raise DataError(
            f"{place} holds {shortened(nested)} beside {shortened(others)}. If these are splits, keep the class "
            "folders in them only; if they are classes, rename them."
        )
    tree.say_left_out()
    if splits and not others:
        found = {f: class_folders(tree, joined(top, f), f"{_name(tree)}, {split_named(f)} split") for f in splits}
        return Contents.of_splits(_name(tree), found)
    return Contents(_name(tree), class_folders(tree, top, (top or _name(tree)).rpartition("/")[2]))


def _numbers_as_names(name: str, found: Mapping[str, LabelledImages]) -> dict[str, LabelledImages]:
    largest = max((int(i.y.max()) for i in found.values() if i.class_names is None and len(i)), default=0)
    if largest >= MOST_CLASSES:
        raise DataError(f"{name} has the label {largest}. Number the classes from 0, or name them.")
    names = tuple(map(str, range(largest + 1)))
    return {s: i if i.class_names is not None else replace(i, class_names=names) for s, i in found.items()}


def class_folders(tree: FileTree, folder: str, origin: str) -> LabelledImages:
    """Read the class folders in a folder; all that is in one, however deep, is of its class.

    Raises:
        DataError: There is none, or one without images.
    """
    place = f"{tree.root}/{folder}" if folder else str(tree.root)
    names = numbered(tree.subfolders(folder))
    if not names:
        raise DataError(f"{place} holds no class folders. Put the images of each class in a folder named after it.")
    if odd := [n for n in names if not is_unicode(n)]:
        raise DataError(f"{place}: the class folders {shortened(odd)} have names that are not UTF-8. Rename them.")
    found = [tree.below(joined(folder, n)) for n in names]
    if empty := [n for n, paths in zip(names, found, strict=True) if not paths]:
        raise DataError(f"{place}: no images in {shortened(empty)}. Add images, or remove the folder.")
    labels = torch.tensor([i for i, paths in enumerate(found) for _ in paths])
    return tree.images([p for paths in found for p in paths], labels, tuple(names), folder, origin)


def numbered(names: Sequence[str]) -> list[str]:
    """Sort the names of classes; where all are numbers, as numbers: 2 comes before 10."""
    found = sorted(names)
    return sorted(found, key=int) if all(n.isdecimal() for n in found) else found


def _top(tree: FileTree, wanted: Sequence[str]) -> str:
    """Return the folder in which classes or splits begin: the only one, where it holds folders and no pictures."""
    top = ""
    while not tree.direct(top) and len(folders := tree.subfolders(top)) == 1 and folders[0] not in wanted:
        inner = joined(top, folders[0])
        only_pictures = not tree.subfolders(inner) and inner == tree.root.name.partition(".")[0]
        whole = not tree.direct(inner) and (len(tree.subfolders(inner)) > 1 or _has_splits(tree, inner))
        if split_named(folders[0]) or not (whole or (only_pictures and tree.file is None)):
            break
        top = inner
    if top:
        warn(f"{tree.root} holds nothing but {top}, which is taken in its place.", DataWarning)
    return top


def _has_splits(tree: FileTree, folder: str) -> bool:
    return any(split_named(f) for f in tree.subfolders(folder))


def _name(tree: FileTree) -> str:
    return tree.root.resolve().name
