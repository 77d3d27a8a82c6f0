"""Programs of torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from unhot.errors import ModelError
from unhot.models.classifier import Classifier
from unhot.models.formats.exports.comparison import random_inputs
from unhot.models.formats.exports.target import Run, Target
from unhot.models.trace import traced
from unhot.runtime.silence import silence


def program_of(model: Classifier, to: str) -> torch.export.ExportedProgram:
    """Trace a classifier for batches of any size.

    Args:
        model: The classifier.
        to: Name of the format, for an error.

    Raises:
        ModelError: It cannot be traced.
    """
    try:
        return traced(model.module, random_inputs(model, 4))
    except ModelError as error:
        raise ModelError(f"This net cannot be exported as {to}: {error}. Export it as state_dict.") from error


class Pt2(Target):
    """A file for ``torch.export.load(file).module()``, which takes inputs (B, C, H, W) and returns logits (B, K)."""

    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)

    def write(self, path: Path) -> None:
        """Trace the net and write its program."""
        program = program_of(self.model, "pt2")
        with silence():
            torch.export.save(program, path)

    def load(self, path: Path) -> Run:
        """Load the program."""
        with silence():
            net: Run = torch.export.load(path).module()
        return net
