"""Folders that ``save_to_disk`` of ``datasets`` (Hugging Face) wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unhot.data.contents import Contents
from unhot.data.dataset import from_dataset
from unhot.data.extras import needed
from unhot.data.formats import guarded


def is_saved(path: Path) -> bool:
    """Return whether a folder is one that ``save_to_disk`` wrote, of one split or of several."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def read_saved(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read the images of such a folder, each when it is needed.

    Args:
        path: The folder.
        wanted: Not used: the folder says which classes there are.

    Raises:
        DataError: It is damaged, or has no columns of images and labels.
    """
    datasets, name = needed("datasets", "a folder of Hugging Face", "hf"), path.resolve().name
    found: Any = guarded(path, lambda: datasets.load_from_disk(str(path)))
    splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"": found}
    images = {split: from_dataset(part) for split, part in splits.items()}
    return Contents.of_splits(
        name,
        {s or name: replace(i, origin=f"{name}, {s} split" if s else name) for s, i in images.items()},
    )
