"""Draws of a guard: inputs of the last stage from the Gaussians of the retained classes."""

from __future__ import annotations

from typing import ClassVar

import torch

from unhot.data.images import FORWARD
from unhot.methods.parts.data import Data
from unhot.methods.parts.last_stage import Flow, LastStage
from unhot.methods.parts.sources.source import COPIES, Source
from unhot.runtime import Runtime


class Guarded(Source):
    """As many draws of each class of the guard."""

    mode: ClassVar[str] = "guarded"

    @property
    def what(self) -> str:
        """How many of what there are, in words."""
        return f"{self.images * COPIES} draws of the guard"

    def flow(self, stage: LastStage, data: Data, runtime: Runtime) -> Flow:
        """Draw inputs of the last stage."""
        guard, generator = data.guard.to(stage.example), runtime.generator("guarded")
        classes = torch.arange(self.images * COPIES) % len(guard.info.classes)
        return Flow.of([stage.replayed(guard.draw(stage.point, c, generator)) for c in classes.split(FORWARD)])
