"""Every kind of place that images are read from, and how they are told apart: by content, not by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from unhot.data.containers import archive, arrays, folder, listing, parquet, saved, webdataset
from unhot.data.contents import Contents
from unhot.data.decoding import HEAD_BYTES, is_picture
from unhot.errors import DataError


class Kind(NamedTuple):
    """A kind of file or folder.

    Attributes:
        name: Its name, in words.
        recognises: Whether a path is of this kind; the first kind that does reads it.
        read: Reads it; names of classes that are wanted may tell how folders are meant.
        labels: Where the classes are from, in words.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Sequence[str]], Contents]
    labels: str


KINDS = (
    Kind("folder of save_to_disk (Hugging Face)", saved.is_saved, saved.read_saved, "its label column"),
    Kind("Parquet file, or a folder of them", parquet.is_parquet, parquet.read_parquet, "its label column"),
    Kind("WebDataset shard, or a folder of them", webdataset.is_shard, webdataset.read_shards, "KEY.cls or KEY.json"),
    Kind("folder of pictures", Path.is_dir, folder.read_folder, "the folders in it"),
    Kind("npz file", arrays.is_npz, arrays.read_npz, "the array train_labels, test_labels or labels"),
    Kind("npy file of images", arrays.is_npy, arrays.read_npy, "none: images of one class"),
    Kind("zip archive", archive.is_zip, archive.read_zip, "the folders in it"),
    Kind("tar archive", archive.is_tar, archive.read_tar, "the folders in it"),
    Kind("list of pictures", listing.is_list, listing.read_list, "its column label, or the second one"),
)


LISTS = (".csv", ".tsv", ".txt")  # text may begin as pictures of some formats do


def kind_of(path: Path) -> Kind:
    """Return of which kind a file or folder is.

    Raises:
        DataError: It is not there, is a single picture, or of no kind that is known.
    """
    if not path.exists():
        raise DataError(f"There is no file or folder {path}. Check the path.")
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path} is not a regular file. Give a file or a folder.")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if is_picture(head) and not arrays.is_npy(path) and path.suffix.lower() not in LISTS:
            raise DataError(f"{path} is a single picture. Give the folder that it is in.")
    found = next((kind for kind in KINDS if kind.recognises(path)), None)
    if found is None:
        known = ", ".join(kind.name for kind in KINDS)
        raise DataError(f"{path} holds no images in a form that is known. Known forms: {known}.")
    return found


def read_contents(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read the images of a file or folder of any kind.

    Args:
        path: The file or folder.
        wanted: Names of classes that are wanted; they may tell how folders are meant.

    Raises:
        DataError: It is not there, damaged, or of no kind that is known.
    """
    return kind_of(path).read(path, wanted)
