"""The small problem on which methods, metrics and attacks are checked."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unhot.data.images import LabelledImages
from unhot.data.samples import Samples, as_images, draw
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.records.measure import Split
from unhot.records.model import InputSpec
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
        batch_norm: Whether the net has batch normalisation.
        dtype: Number type of weights and images.
    """
    made = _trained(batch_norm)
    return Toy(copy.deepcopy(made.model).to(dtype), made.x.to(dtype), made.y)


@cache
def _trained(batch_norm: bool) -> Toy:
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(CLASSES, 1, 8, 8, generator=generator)
    y = torch.arange(CLASSES).repeat(24)
    x = means[y] + 1.2 * torch.randn(len(y), 1, 8, 8, generator=generator)
    return Toy(_fitted(x, y, 7, 60, batch_norm, dropout=0.5), x, y)


def _fitted(x: Tensor, y: Tensor, seed: int, steps: int, batch_norm: bool, dropout: float) -> nn.Module:
    with own_generators(), torch.enable_grad():
        torch.manual_seed(seed)
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
            nn.Dropout(dropout),
            nn.Linear(12, CLASSES),
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
    optimizer.zero_grad()
    return net.eval()


def toy_views(
    *, train: bool = True, retrained: int = 2, test_images: int = 1_000, pixels: bool = True, seed: int = 0
) -> Views:
    """Return the models of an audit on a harder problem of the same kind; always the same ones.

    The original remembers its train images; the unlearned model is the original with noise on its weights; the
    retrained ones never saw class 1, which is to be forgotten.

    Args:
        train: Whether there are train images, 40 of each class.
        retrained: Number of retrained models, at most two.
        test_images: Number of test images of each class.
        pixels: Whether the models say how pixels become inputs.
        seed: Seed of the audit.
    """
    nets, images = _audited()
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.06,)) if pixels else None
    models = [Classifier.wrap(copy.deepcopy(net), images["test"][0][:2], input=spec) for net in nets]
    original, unlearned, *others = models
    splits: dict[Split, LabelledImages] = {"test": _first(images["test"], test_images)}
    if train:
        splits["train"] = as_images(images["train"])
    labels = [original.classes[FORGOTTEN]]
    return Views(original, unlearned, others[:retrained], labels, splits, Runtime(torch.device("cpu"), seed=seed))


def _first(images: tuple[Tensor, Tensor], count: int) -> LabelledImages:
    """Return the first images of each class, which follow one another in turn."""
    x, y = images
    return as_images((x[: count * CLASSES], y[: count * CLASSES]))


@cache
def _audited() -> tuple[list[nn.Module], dict[Split, tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(7)
    means = torch.randn(CLASSES, 1, 8, 8, generator=generator)
    images: dict[Split, tuple[Tensor, Tensor]] = {}
    sizes: dict[Split, int] = {"train": 40, "test": 1_000}
    for split, count in sizes.items():
        y = torch.arange(CLASSES).repeat(count)
        images[split] = means[y] + 2.0 * torch.randn(len(y), 1, 8, 8, generator=generator), y
    x, y = images["train"]
    kept = y != FORGOTTEN
    original = _fitted(x, y, 7, 120, batch_norm=False, dropout=0.0)
    damaged = copy.deepcopy(original)
    with torch.no_grad():
        for p in damaged.parameters():
            p.add_(2 * p.std() * torch.randn(p.shape, generator=generator))
    return [original, damaged, *(_fitted(x[kept], y[kept], s, 120, False, 0.0) for s in (8, 9))], images
