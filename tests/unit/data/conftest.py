"""Small pictures, folders of them, and inputs to read them by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unhot.data.images import LabelledImages
from unhot.records.model import InputSpec


@pytest.fixture
def spec() -> Callable[..., InputSpec]:
    def make(height: int, width: int | None = None, channels: int = 1) -> InputSpec:
        mean, std = (0.25, 0.5, 0.75)[:channels], (0.5, 0.25, 0.2)[:channels]
        return InputSpec(height=height, width=width or height, channels=channels, mean=mean, std=std)

    return make


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """A picture of noise: a size (width, height), a mode, and a seed."""

    def make(size: tuple[int, int] = (6, 6), mode: str = "L", seed: int = 0) -> Image.Image:
        colours = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(colours).convert(mode)

    return make


@pytest.fixture
def class_folders(tmp_path: Path, picture: Callable[..., Image.Image]) -> Path:
    """``b`` with two grey pictures and ``a`` with three."""
    for name, count in (("b", 2), ("a", 3)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            picture(seed=10 * count + i).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture
def numbered() -> LabelledImages:
    """12 images 2x2 whose pixels are their number, of the classes x, y and z in turn."""
    x = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 1, 2, 2).clone()
    return LabelledImages(x, torch.arange(12) % 3, ("x", "y", "z"), "numbers", tuple(range(100, 112)))
