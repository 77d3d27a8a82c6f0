"""The small problem that methods are checked on."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unhot.data.samples import Samples, draw
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime, own_generators
from unhot.statistics import ClassStatistics

CLASSES, FORGOTTEN, SHOTS = 4, 1, 8


@dataclass(frozen=True)
class Toy:
    """A small trained net and its images.

    Attributes:
        model: Takes (B, 1, 8, 8), returns logits (B, 4); trained, but not saturated.
        x: Images (N, 1, 8, 8).
        y: Their classes, int64 (N,).
    """

    model: nn.Module
    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)

    def samples(self, *classes: int) -> Samples:
        """Return a few images of the classes to forget; of class 1 if none is named."""
        return draw((self.x, self.y), classes or (FORGOTTEN,), SHOTS)

    def retain(self, *classes: int) -> tuple[Tensor, Tensor]:
        """Return the images of all other classes."""
        kept = ~torch.isin(self.y, torch.tensor(classes or (FORGOTTEN,)))
        return self.x[kept], self.y[kept]

    def guard(self) -> ClassStatistics:
        """Return statistics of all classes, as ``unhot guard`` collects them."""
        model = Classifier.wrap(self.model, example=self.x[:2])
        return ClassStatistics.collect(model, (self.x, self.y), Runtime(torch.device("cpu")))


def toy_problem(batch_norm: bool = True, dtype: torch.dtype = torch.float32) -> Toy:
    """Make the small problem; always the same, and the global generators are left alone.

    Args:
        batch_norm: Whether the net has it.
        dtype: Of weights and images.
    """
    made = _trained(batch_norm)
    return Toy(copy.deepcopy(made.model).to(dtype), made.x.to(dtype), made.y)


@cache
def _trained(batch_norm: bool) -> Toy:
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(CLASSES, 1, 8, 8, generator=generator)
    y = torch.arange(CLASSES).repeat(24)
    x = means[y] + 1.2 * torch.randn(len(y), 1, 8, 8, generator=generator)
    with own_generators(), torch.enable_grad():
        torch.manual_seed(7)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=not batch_norm),
            nn.BatchNorm2d(6) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 12),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(12, CLASSES),
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
    optimizer.zero_grad()
    return Toy(net.eval(), x, y)
