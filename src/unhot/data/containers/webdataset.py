"""WebDataset shards: tar files in which ``key.jpg`` and ``key.cls`` are one image and its class."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from unhot.data.containers.archive import DAMAGES, is_tar, members_of_tar
from unhot.data.containers.parquet import split_of
from unhot.data.contents import Contents
from unhot.data.decoding import THREADS, open_bytes
from unhot.data.images import LabelledImages, Pictures
from unhot.data.labels import Label, one_label, read_labels
from unhot.data.tree import SUFFIXES, unwanted
from unhot.errors import DataError, DataWarning, shortened, warn

CLASSES = ("cls", "cls.txt", "label", "label.txt")  # of WebDataset, and of those who follow it
LOOKED_AT = 200  # members of a tar file that tell whether it is a shard
MOST_DIGITS = 1_000  # bytes of a label


class _Item(NamedTuple):
    key: str
    content: Callable[[], bytes]
    label: Label


def is_shard(path: Path) -> bool:
    """Return whether a tar file, or the first of a folder of nothing but tar files, is a WebDataset shard."""
    if path.is_dir():
        shards = shards_in(path)
        return bool(shards) and is_shard(shards[0])
    if not is_tar(path):
        return False
    found = list[str]()
    with suppress(*DAMAGES), tarfile.open(path) as archive:  # what reads it says that it is damaged
        for member, _ in zip(archive, range(LOOKED_AT), strict=False):
            found += [member.name] * member.isreg()
    pictures = {parts(n)[0] for n in found if f".{parts(n)[1]}" in SUFFIXES}
    labels = {parts(n)[0] for n in found if parts(n)[1] in (*CLASSES, "json")}
    return bool(pictures & labels)


def shards_in(folder: Path) -> list[Path]:
    """Return the tar files of a folder and of those in it, where there are no other files than short texts."""
    files = [p for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.is_file() and not unwanted(p.name)]
    shards = sorted(p for p in files if p.suffix == ".tar")
    return shards if all(p in shards or p.suffix in (".json", ".txt", ".md", ".yaml") for p in files) else []


def parts(name: str) -> tuple[str, str]:
    """Return key and ending of a member: the ending begins at the first dot of its name."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def read_shards(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read the images of a shard, or of a folder of shards, whose names begin with their splits.

    The labels, numbers or names, are read at once, an image when it is needed.

    Args:
        path: The shard or folder.
        wanted: Not used: the shards say which classes there are.

    Raises:
        DataError: A shard is damaged, or an image has no label.
    """
    splits: dict[str, list[_Item]] = {}
    for shard in shards_in(path) if path.is_dir() else [path]:
        splits.setdefault(split_of(shard, path), []).extend(_items(shard))
    name = path.resolve().name
    return Contents.of_splits(name, {s or name: _images(items, s, name) for s, items in splits.items()})


def _items(shard: Path) -> list[_Item]:
    members, read = members_of_tar(shard)
    found: dict[str, dict[str, str]] = {}
    for member in members:
        if not member.endswith("/") and not unwanted(member):
            key, ending = parts(member)
            found.setdefault(key, {})[ending] = member
    items, without = list[_Item](), list[str]()
    for key, files in found.items():
        picture = next((m for e, m in files.items() if f".{e}" in SUFFIXES), None)
        if picture is None:
            without.append(key)
            continue
        items.append(_Item(f"{shard.name}/{key}", partial(read, picture), _label(files, read, f"{shard}/{key}")))
    if without:
        warn(f"{shard}: files without a picture are left out: {shortened(without)}.", DataWarning)
    return items


def _label(files: dict[str, str], read: Callable[[str], bytes], name: str) -> Label:
    """Return the label of an image: the text of its class file, or ``label`` or ``cls`` of its JSON file."""
    ending = next((e for e in CLASSES if e in files), "json" if "json" in files else None)
    if ending is None:
        raise DataError(f"{name} has no label. Add {name.rpartition('/')[2]}.cls, or remove it.")
    try:
        text = read(files[ending]).decode().strip()
        value = next(v for k, v in json.loads(text).items() if k in ("label", "cls")) if ending == "json" else text
    except (ValueError, StopIteration, AttributeError) as error:
        raise DataError(f"{name}.{ending} holds no label. Write a number or a name in it.") from error
    if isinstance(value, str) and value and len(value) < MOST_DIGITS:
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else value
    if isinstance(value, int | list) and not isinstance(value, bool):
        return one_label(value, f"{name}.{ending}")
    raise DataError(f"{name}.{ending} holds no label. Write a number or a name in it.")


def _images(items: list[_Item], split: str, name: str) -> LabelledImages:
    origin = f"{name}, {split} split" if split else name
    if not items:
        raise DataError(f"{origin} holds no images. Check the shards.")
    y, names = read_labels([i.label for i in items], None, origin)
    pictures = Pictures(
        lambda i: open_bytes(items[i].content(), items[i].key), len(items), None, lambda i: items[i].key, THREADS
    )
    return LabelledImages(pictures, y, names, origin, tuple(i.key for i in items))
