"""Lists: text files that name one picture a line, and its class, as in CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from unhot.data.contents import Contents, numbered
from unhot.data.decoding import THREADS, open_picture
from unhot.data.images import LabelledImages, Pictures
from unhot.errors import DataError, DataWarning, shortened, warn
from unhot.reading import read_text

MOST_BYTES = 1 << 30
PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "name")
LABELS = ("label", "class", "target", "category", "class_name", "label_name", "y")
SPLIT = "split"
DELIMITERS = ",\t;"


def is_list(path: Path) -> bool:
    """Return whether a file is text."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4_096)
    return bool(head) and b"\0" not in head and not any(b < 9 for b in head)


def read_list(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read a list of pictures: a path a line, or a path and a label between a comma, a semicolon, a tab or a space.

    A first line of column names, such as ``path,label,split``, chooses the columns. Paths are relative to the list.

    Args:
        path: The list.
        wanted: Not used: whatever classes are wanted, the list says which there are.

    Raises:
        DataError: It is empty, its lines are of different lengths, or files are missing.
    """
    rows = _rows(read_text(path, MOST_BYTES), path)
    names = [c.strip().lower() for c in rows[0]]
    headed = any(n in PATHS for n in names) and (len(names) == 1 or any(n in (*LABELS, SPLIT) for n in names))
    at: int | None = 0
    label, split = (1 if len(names) > 1 else None), None
    if headed:
        at, label, split = (
            next((names.index(k) for k in keys if k in names), None) for keys in (PATHS, LABELS, [SPLIT])
        )
        rows = rows[1:]
        if left := [n for i, n in enumerate(names) if i not in (at, label, split)]:
            warn(f"{path}: the columns {shortened(left)} are not read.", DataWarning)
    elif len(names) > 2:
        raise DataError(f"{path} has {len(names)} columns without names. Write a first line such as path,label.")
    return _contents(path, rows, at or 0, label, split)


def _contents(path: Path, rows: list[list[str]], at: int, label: int | None, split: int | None) -> Contents:
    files = [path.parent / row[at].strip() for row in rows]
    if not files:
        raise DataError(f"{path} names no pictures. Write a path and a label a line.")
    missing = [row[at].strip() for row, file in zip(rows, files, strict=True) if not file.is_file()]
    if len(files) > 1 and missing == [rows[0][at].strip()] and label is not None:
        raise DataError(
            f"{path}: its first line, {shortened(rows[0])}, names no picture. Call the columns path and label there."
        )
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(files)} files are missing: {shortened(missing)}. Paths are relative to "
            "the list; correct or remove these lines."
        )
    keys, name = tuple(row[at].strip() for row in rows), path.name
    pictures = Pictures(
        lambda i: open_picture(files[i]), len(files), None, lambda i: str(files[i]), THREADS, files.__getitem__
    )
    texts = ["" if label is None else row[label].strip() for row in rows]
    if label is not None and (empty := [k for k, t in zip(keys, texts, strict=True) if not t]):
        raise DataError(f"{path}: no label for {shortened(empty)}. Write one, or remove these lines.")
    classes = tuple(numbered(list(set(texts))))
    place = {c: i for i, c in enumerate(classes)}
    y = torch.tensor([place[t] for t in texts], dtype=torch.int64)
    images = LabelledImages(pictures, y, None if label is None else classes, name, keys)
    if label is None:
        return Contents(name, images, labelled=False)
    if split is None:
        return Contents(name, images)
    parts = [row[split].strip() for row in rows]
    found = {p: images.where(torch.tensor([q == p for q in parts])) for p in dict.fromkeys(parts)}
    return Contents.of_splits(name, found)


def _rows(text: str, path: Path) -> list[list[str]]:
    """Split the lines at the delimiter of the first one; without one, at the last space, as in lists of ImageNet."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty. Write a path and a label a line.")
    found = [d for d in DELIMITERS if d in lines[0]]
    if found:
        try:
            rows = [row for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=found[0], strict=True) if row]
        except csv.Error as error:
            raise DataError(f"{path} is no list of pictures ({error}). Write a path and a label a line.") from error
    elif all(" " in line.strip() and not (path.parent / line.strip()).is_file() for line in lines[:20]):
        rows = [line.strip().rsplit(maxsplit=1) for line in lines]
    else:
        rows = [[line] for line in lines]
    width = len(rows[0])
    if odd := [i + 1 for i, row in enumerate(rows) if len(row) != width]:
        raise DataError(
            f"{path}: line {odd[0]} has {len(rows[odd[0] - 1])} columns, and the first has {width}. Correct it."
        )
    return rows
