"""Labels as they come in data sets: numbers, texts and one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unhot.errors import DataError, brief, shortened

Label = int | str
LARGEST = 2**31


def one_label(label: Any, name: str) -> Label:
    """Read the label of one item.

    Args:
        label: A number, text, or a one-hot vector; as a scalar, an array or a tensor.
        name: Name of the item in error messages.

    Returns:
        A number from 0, or text.

    Raises:
        DataError: It is not one class: a fraction, negative, several classes, or something else.
    """
    if isinstance(label, str):
        return str(label)
    if isinstance(label, Tensor):
        label = label.detach().cpu()
        label = label.float() if label.dtype == torch.bfloat16 else label
    try:
        values = np.asarray(label)
    except Exception as error:  # ragged lists, and what has a __array__ of its own
        raise DataError(f"{name} has no readable label ({type(label).__name__}). Give a number or a text.") from error
    if values.dtype.kind == "U" and values.size == 1:
        return str(values.reshape(-1)[0])
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} has the label {brief(label)}. Give a number or a text.")
    if values.size != 1:
        return _of_one_hot(values, name)
    value = values.reshape(-1)[0]
    if not np.isfinite(value) or value != int(value) or not 0 <= value < LARGEST:
        raise DataError(f"{name} has the label {value}. Labels are whole numbers from 0.")
    return int(value)


def read_labels(
    labels: Sequence[Label], names: tuple[str, ...] | None, origin: str
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Turn the labels of a data set into positions among its class names.

    Args:
        labels: The label of every item.
        names: Names of the classes, if they are known; otherwise labels that are texts become names, sorted.
        origin: Name of the data set in error messages.

    Returns:
        Positions, int64 (N,), and the class names.

    Raises:
        DataError: Some are numbers and some texts, or a text is none of ``names``.
    """
    texts = sorted({label for label in labels if isinstance(label, str)})
    if not texts:
        return torch.tensor(labels, dtype=torch.int64), names
    if any(isinstance(label, int) for label in labels):
        raise DataError(
            f"{origin}: some labels are numbers, and others texts such as {texts[0]!r}. Use one of the two."
        )
    names = names or tuple(texts)
    if missing := [text for text in texts if text not in names]:
        raise DataError(f"{origin}: the labels {shortened(missing)} are none of its classes {shortened(names)}.")
    if len(set(names)) < len(names):
        raise DataError(f"{origin}: two of its classes have one name, and labels are names. Use numbers.")
    place = {name: i for i, name in enumerate(names)}
    return torch.tensor([place[str(label)] for label in labels], dtype=torch.int64), names


def whole_numbers(y: Tensor, origin: str) -> Tensor:
    """Return labels (N,) as int64 on the CPU.

    Raises:
        DataError: They have another shape, or are fractions.
    """
    if y.ndim != 1:
        raise DataError(f"Expected labels of shape (N,), got {tuple(y.shape)}.")
    y = y.detach().cpu()
    if y.is_complex() or (y.is_floating_point() and bool((y != y.floor()).any() | ~y.isfinite().all())):
        raise DataError(f"{origin}: labels are whole numbers from 0, and some are not.")
    return y.to(torch.int64)


def check_labels(y: Tensor, names: tuple[str, ...] | None, keys: Sequence[object], origin: str) -> None:
    """Refuse labels, int64 (N,), that are positions of no class.

    Raises:
        DataError: Names the first image that has one.
    """
    wrong = (y < 0) if names is None else (y < 0) | (y >= len(names))
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        classes = "Labels are whole numbers from 0." if names is None else f"There are {len(names)} classes, from 0."
        raise DataError(f"{origin}: image {keys[i]} has the label {int(y[i])}. {classes}")


def _of_one_hot(values: np.ndarray, name: str) -> int:
    if values.ndim != 1 or values.size == 0 or not (((values == 0) | (values == 1)).all() and values.sum() == 1):
        raise DataError(
            f"{name} has the label {brief(values.tolist())}, which is not one class. Give its number, its name, or a "
            "one-hot vector; nets of several classes an image (multi-label) are not supported."
        )
    return int(values.argmax())
