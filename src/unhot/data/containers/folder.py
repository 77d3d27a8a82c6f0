"""Folders: class folders however deep, with or without train and test above them, or pictures of one class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unhot.data.contents import Contents, of_tree
from unhot.data.tree import FileTree


def read_folder(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read a folder of class folders or of pictures.

    Raises:
        DataError: It holds neither.
    """
    return of_tree(FileTree.of_folder(path), wanted)
