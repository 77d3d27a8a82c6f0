"""Parquet files as of the hub of Hugging Face: a column of image files, and one of labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from unhot.data.contents import Contents, split_named
from unhot.data.dataset import IMAGE_KEYS, LABEL_KEYS
from unhot.data.decoding import THREADS, open_bytes
from unhot.data.extras import needed
from unhot.data.formats import guarded
from unhot.data.images import LabelledImages, Pictures
from unhot.data.labels import one_label, read_labels
from unhot.data.tree import SUFFIXES
from unhot.errors import DataError, DataWarning, shortened, warn

MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Return whether a file is one of Parquet, or a folder holds such files, by themselves or in ``data``."""
    if path.is_file():
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    return path.is_dir() and bool(files := parquet_files(path)) and is_parquet(files[0])


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, and those of the folders in it, by name."""
    return sorted(p for pattern in ("*.parquet", "*/*.parquet") for p in folder.glob(pattern) if p.is_file())


def read_parquet(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read the images of a Parquet file, or of a folder of them, whose names begin with their splits.

    The labels are read at once, an image when it is needed, with the rows that were written with it.

    Args:
        path: The file or folder.
        wanted: Not used: the files say which classes there are.

    Raises:
        DataError: A file is damaged, or has no columns of images and labels.
    """
    files = [path] if path.is_file() else parquet_files(path)
    if path.is_dir() and (pictures := [p.name for p in path.rglob("*") if p.suffix.lower() in SUFFIXES]):
        warn(f"{path}: pictures beside the Parquet files are left out: {shortened(sorted(pictures))}.", DataWarning)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file, path), []).append(file)
    return Contents.of_splits(path.resolve().name, {s or path.name: _read(f, s, path) for s, f in splits.items()})


def split_of(file: Path, root: Path) -> str:
    """Return the split that a file's name, such as ``train-00000-of-00002.parquet``, or its folder begins with."""
    names = [file.name, *(() if file == root else file.relative_to(root).parts[:-1])]
    starts = (name.replace("_", "-").replace(".", "-").partition("-")[0] for name in names)
    return next((s for s in starts if split_named(s)), "")


def _read(files: list[Path], split: str, root: Path) -> LabelledImages:
    origin = f"{root.resolve().name}, {split} split" if split else root.resolve().name
    parquet = needed("pyarrow.parquet", "Parquet files", "hf")
    opened = [guarded(f, partial(parquet.ParquetFile, f, memory_map=True)) for f in files]
    schema = opened[0].schema_arrow
    image, label = (_column(schema.names, keys, files[0]) for keys in (IMAGE_KEYS, LABEL_KEYS))
    values = [v for f, o in zip(files, opened, strict=True) for v in guarded(f, partial(_values, o, label))]
    raw = [one_label(v, f"{origin}[{i}]") for i, v in enumerate(values)]
    y, names = read_labels(raw, _names(schema, label), origin)
    if not len(y):
        raise DataError(f"{origin} holds no images. Check the file.")
    rows = _Rows(opened, image)
    pictures = Pictures(
        lambda i: open_bytes(rows.content(i, f"{origin}[{i}]"), f"{origin}[{i}]"),
        len(y),
        None,
        lambda i: f"{origin}[{i}]",
        THREADS,
    )
    return LabelledImages(pictures, y, names, origin, tuple(range(len(y))))


class _Rows:
    """The images in some files, row group by row group, of which the last two are held."""

    def __init__(self, files: list[Any], column: str) -> None:
        self.groups = [(f, g) for f in files for g in range(f.num_row_groups)]
        sizes = [f.metadata.row_group(g).num_rows for f, g in self.groups]
        self.starts, self.column, self.lock = np.cumsum([0, *sizes]), column, threading.Lock()
        self.group = lru_cache(maxsize=2)(self._group)

    def _group(self, number: int) -> Any:
        file, group = self.groups[number]
        return file.read_row_group(group, columns=[self.column]).column(0)

    def content(self, row: int, name: str) -> bytes:
        """Return the content of an image file."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        with self.lock:
            value = self.group(number)[row - int(self.starts[number])].as_py()
        found = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(found, bytes):
            where = f", only a path ({value.get('path')})" if isinstance(value, dict) else ""
            raise DataError(f"{name} does not hold the content of an image file{where}. Save the images in the file.")
        return found


def _values(file: Any, column: str) -> list[Any]:
    found: list[Any] = file.read(columns=[column]).column(0).to_pylist()
    return found


def _column(names: list[str], keys: tuple[str, ...], file: Path) -> str:
    found = [n for n in names if n in keys]
    if len(found) != 1:
        raise DataError(
            f"{file} has the columns {shortened(names)}. Expected one of {', '.join(keys)}: rename or remove columns."
        )
    return found[0]


def _names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Return the names of the classes, where they were written by ``datasets`` of Hugging Face."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
