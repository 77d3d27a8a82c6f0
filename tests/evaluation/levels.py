"""Perfect nets of grey levels, whose every accuracy is known to be 1: any other number is an error of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from unhot.data.images import LabelledImages
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec

SPEC = InputSpec(height=4, width=4, channels=1, mean=(0.0,), std=(1.0,))
SHADES = 5  # of each class


def level_net(classes: int, order: Sequence[int] | None = None, names: Sequence[str] | None = None) -> Classifier:
    """A net that says which of some grey levels a picture is nearest to.

    Args:
        classes: How many levels there are.
        order: Which level each output is for; all in order if None.
        names: Of the levels; their numbers if None.
    """
    order = range(classes) if order is None else order
    at = torch.linspace(0.04, 0.96, classes)[list(order)]
    with torch.random.fork_rng(devices=[]):
        middle, head = nn.Linear(1, 4, bias=False), nn.Linear(4, len(at))
    middle.weight.data = torch.tensor([[1.0], [0.3], [-0.5], [0.2]])
    head.weight.data = torch.zeros(len(at), 4)
    head.weight.data[:, 0], head.bias.data = 4000 * at, -2000 * at * at
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), middle, head).eval()
    called = [str(k) if names is None else names[k] for k in order]
    return Classifier.wrap(net, class_names=called, input=SPEC)


def shades(level: int, classes: int, count: int) -> list[int]:
    """Pixel values of pictures of one level."""
    at = 0.04 + 0.92 * level / (classes - 1)
    return [round(255 * (at + 0.08 / classes * ((i % SHADES) / (SHADES - 1) - 0.5))) for i in range(count)]


def level_images(counts: Sequence[int], names: Sequence[str] | None = None, origin: str = "levels") -> LabelledImages:
    """So many images of each level, uint8; ``names`` are those of the levels."""
    values = [v for level, n in enumerate(counts) for v in shades(level, len(counts), n)]
    y = torch.tensor([level for level, n in enumerate(counts) for _ in range(n)])
    x = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 4, 4)
    x[:, 0, 0, 0] -= torch.arange(len(x), dtype=torch.uint8) % 3  # so that no two of a level need be alike
    return LabelledImages(x, y, None if names is None else tuple(names), origin, tuple(range(len(y))))


def level_folders(root: Path, names: Sequence[str], count: int) -> Path:
    """Class folders of levels, by the names of these."""
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i, value in enumerate(shades(level, len(names), count)):
            Image.new("L", (4, 4), value).save(root / name / f"{i}.png")
    return root
