"""Data sets of ``datasets`` (Hugging Face): labels from their column, images when they are needed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unhot.data.decoding import Picture, open_bytes, open_picture
from unhot.errors import DataError


def labels_and_files(
    data: Any, image_keys: Sequence[str], label_keys: Sequence[str], origin: str
) -> tuple[list[Any], Any] | None:
    """Return the labels of such a data set, and what opens the picture of an item, without decoding any.

    Args:
        data: Anything.
        image_keys: Names of columns that hold images.
        label_keys: Names of columns that hold labels.
        origin: Name of the data set in error messages.

    Returns:
        The labels and a function of an item's position; None if it is another kind of data set, has none or several of
        these columns, or transforms its items.
    """
    library = sys.modules.get("datasets")
    if library is None or not isinstance(data, library.Dataset) or data.format["type"] is not None:
        return None
    images, labels = ([k for k in keys if k in data.column_names] for keys in (image_keys, label_keys))
    if len(images) != 1 or len(labels) != 1 or not isinstance(data.features[images[0]], library.Image):
        return None
    stored = data.select_columns(images).cast_column(images[0], library.Image(decode=False))

    def picture(i: int) -> Picture:
        value, name = stored[i][images[0]], f"{origin}[{i}]"
        if value is None or not (value.get("bytes") or value.get("path")):
            raise DataError(f"{name} has no image. Remove the item.")
        return open_bytes(value["bytes"], name) if value.get("bytes") else open_picture(Path(value["path"]))

    return list(data[labels[0]]), picture
