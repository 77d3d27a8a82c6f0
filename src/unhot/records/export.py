"""What an export wrote, and how it compares with the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unhot.records.base import Count, Record, Stored
from unhot.records.model import ClassLabel


class Comparison(Stored):
    """How what was exported, loaded again, compares with the model on random images.

    Attributes:
        images: Number of images.
        batch_sizes: Sizes of the batches in which both classified them.
        largest_difference: Largest difference of two logits of an image and a class.
        tolerance: Largest difference that is accepted.
    """

    images: Count
    batch_sizes: tuple[int, ...]
    largest_difference: float = Field(ge=0)
    tolerance: float = Field(ge=0)


class ExportRecord(Record):
    """What an export wrote.

    Attributes:
        to: Name of the format.
        out: The file or folder.
        files: SHA-256 of each file, by its name in the folder.
        model_sha256: SHA-256 of the weights of the model.
        classes: The class of each output, in order.
        masked: The classes among them that the model never answers with.
        added: Names of weights that were not in the original, such as a bias that the cut needs.
        stripped: What every name of a weight began with in the original, and does not now.
        comparison: How it compares with the model.
    """

    kind: Literal["export"] = "export"
    to: str
    out: str
    files: dict[str, str]
    model_sha256: str
    classes: tuple[ClassLabel, ...]
    masked: tuple[ClassLabel, ...]
    added: tuple[str, ...] = ()
    stripped: str = ""
    comparison: Comparison
    unhot_version: str
