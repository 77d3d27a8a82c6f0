"""Source: the base class of what stands in for images of the retained classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from unhot.methods.parts.data import Data
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.runtime import Runtime

COPIES, SHIFT = 6, 2  # copies of each image at most, and their farthest shift in pixels


@dataclass(frozen=True)
class Source(ABC):
    """What stands in for images of the retained classes.

    Attributes:
        images: Number of images.
        mode: Its name in the record.
        real: Whether they are images of the other classes themselves.
        usual: Accuracy that real images usually lose, as a share of what held-out stand-ins lose. Set on nets of
            Fashion-MNIST.
        most: The same at most.
    """

    images: int

    mode: ClassVar[str]
    real: ClassVar[bool] = False
    usual: ClassVar[float] = 1.5
    most: ClassVar[float] = 2.25

    @property
    @abstractmethod
    def what(self) -> str:
        """How many of what there are, in words."""

    @property
    def calibrated(self) -> bool:
        """Whether nets of this kind were among those that ``usual`` and ``most`` were set on."""
        return True

    def ready(self, stage: LastStage, runtime: Runtime) -> Self:
        """Return the source with what is kept of it, before anything is timed.

        Raises:
            InputError: It is of another model, or damaged.
            OutputError: It cannot be kept where it should be.
        """
        return self

    def seconds(self, stage: LastStage, runtime: Runtime) -> float:
        """Return how long one image takes; nothing where images are at hand."""
        return 0.0

    def fewer(self, images: int) -> Self:
        """Return the source with a smaller number of images."""
        return replace(self, images=images)

    @abstractmethod
    def flow(self, stage: LastStage, data: Data, runtime: Runtime) -> Flow:
        """Return the inputs of the last stage for the stand-ins, several copies of each image."""
