"""The header of a file of class statistics."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from unhot.records.base import Record
from unhot.records.model import ClassLabel


class StatisticsInfo(Record):
    """The header of a guard file.

    Attributes:
        model_sha256: SHA-256 of the weights and buffers of the model that it was collected from.
        classes: The classes that it describes.
        counts: Number of images of each class.
        layers: Weight layers whose inputs are described by their second moment, in the order they are called.
        replay_points: For those nearest the head, the replay point before each (:mod:`unhot.models.replay`), whose
            input is described by a Gaussian.
        origin: Where the images came from, in words.
    """

    kind: Literal["guard"] = "guard"
    model_sha256: str
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    counts: tuple[Annotated[int, Field(gt=0)], ...]
    layers: tuple[str, ...]
    replay_points: dict[str, str] = Field(
        validation_alias=AliasChoices("replay_points", "split_points")
    )  # its old name
    origin: str

    @model_validator(mode="after")
    def _one_for_each_class(self) -> Self:
        if len(self.counts) != len(self.classes) or len({c.index for c in self.classes}) < len(self.classes):
            raise ValueError("each class needs one count and must be named once")
        return self
