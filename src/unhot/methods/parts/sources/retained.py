"""Retained images: images of the other classes that are given; they need not be those of the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from unhot.errors import counted
from unhot.methods.parts.data import Data
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.methods.parts.sources.source import COPIES, SHIFT, Source
from unhot.runtime import Runtime


@dataclass(frozen=True)
class Retained(Source):
    """Some of the images of the other classes, drawn at random.

    Attributes:
        copies: Number of copies of each.
    """

    copies: int = COPIES

    mode: ClassVar[str] = "retained"
    real: ClassVar[bool] = True
    kind: ClassVar[str] = "given"
    usual: ClassVar[float] = 1.0
    most: ClassVar[float] = 1.6  # on nets of Fashion-MNIST and of CIFAR-10

    @property
    def what(self) -> str:
        """How many of what there are, in words."""
        return counted(self.images, f"{self.kind} image")

    def flow(self, stage: LastStage, data: Data, runtime: Runtime) -> Flow:
        """Return the inputs of the last stage for shifted copies of the images."""
        some = torch.randperm(len(data.retain), generator=runtime.generator("retained"))[: self.images]
        x = data.retain.inputs(some, stage.model.input, runtime.device).to(stage.example)
        return stage.flow(x, self.copies, SHIFT, runtime.generator("copies of retained"))


class UnlabelledImages(Retained):
    """Some of the images that nobody labelled, and that the original does not classify as a class to forget."""

    mode: ClassVar[str] = "unlabelled"
    real: ClassVar[bool] = False
    kind: ClassVar[str] = "unlabelled"
    usual = Source.usual
    most = Source.most
