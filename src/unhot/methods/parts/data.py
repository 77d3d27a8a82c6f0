"""Data: the samples and, if a method declares that it reads them, retained images and statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from unhot.data.images import LabelledImages
from unhot.errors import DataError, UndeclaredReadError, spelled
from unhot.records.model import ClassLabel
from unhot.statistics import ClassStatistics

Use = Literal["forget", "retain", "guard"]


class Batch(NamedTuple):
    """Samples, ready for the model.

    Attributes:
        x: Inputs (B, C, H, W) on the device.
        y: The output column of each image's class, int64 (B,).
        logits: The original model's logits for them, (B, K).
    """

    x: Tensor
    y: Tensor
    logits: Tensor

    def part(self, index: Tensor | slice) -> Batch:
        """Return some of them."""
        return Batch(*(values[index] for values in self))


@dataclass(frozen=True)
class Data:
    """The data of a method; a read that the method's ``uses`` does not name raises.

    Attributes:
        labels: The classes to forget.
        columns: Their output columns.
        uses: Names of the data that may be read.
        samples: The samples, for the base class; a method reads ``forget``.
        others: The retained images, for the base class; a method reads ``retain``.
        labelled: Whether the labels of the retained images are given; else the original classifies them so.
        statistics: The statistics, for the base class; a method reads ``guard``.
        method: The name of the method.
    """

    labels: tuple[ClassLabel, ...]
    columns: list[int]
    uses: tuple[Use, ...]
    samples: Batch = field(repr=False)
    others: LabelledImages | None = field(repr=False)
    labelled: bool = True
    statistics: ClassStatistics | None = field(default=None, repr=False)
    method: str = "This method"

    @property
    def forget(self) -> Batch:
        """The samples of the classes to forget."""
        self._check("forget")
        return self.samples

    @property
    def retain(self) -> LabelledImages:
        """Images of the other classes, labelled with output columns."""
        self._check("retain")
        if self.others is None:
            what = "images of the retained classes"
            error = DataError(f"{self.method} needs {what}. Pass retain=..., or choose another method.")
            raise spelled(error, "Pass retain=...", "Give --retain")
        return self.others

    @property
    def guard(self) -> ClassStatistics:
        """Stored statistics of the retained classes."""
        self._check("guard")
        if self.statistics is None:
            error = DataError(f"{self.method} needs stored statistics. Pass guard=..., or choose another method.")
            raise spelled(error, "Pass guard=...", "Give --guard")
        return self.statistics

    def _check(self, what: Use) -> None:
        if what not in self.uses:
            raise UndeclaredReadError(f"The method read {what!r} data but declares uses = {self.uses}.")
