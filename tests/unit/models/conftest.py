"""Nets of every kind, small, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unhot.data.images import LabelledImages
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec


@pytest.fixture(autouse=True)
def _seeded(keep_generators: None) -> None:
    """Nets draw their first weights from the global generator: the same ones in every test, and the state put back."""
    torch.manual_seed(0)


@pytest.fixture
def spec() -> Callable[..., InputSpec]:
    def make(size: int, channels: int = 3) -> InputSpec:
        return InputSpec(height=size, width=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)

    return make


@pytest.fixture
def mlp() -> Callable[..., nn.Sequential]:
    """A net of two linear layers for grey images of 4x4."""

    def make(outputs: int = 5, bias: bool = True) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, outputs, bias=bias))

    return make


@pytest.fixture
def x() -> Tensor:
    """Six inputs of :func:`mlp`."""
    return torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def lenet(spec: Callable[..., InputSpec]) -> Classifier:
    """An untrained LeNet-5 of 12x12 grey images that can be saved."""
    s = spec(12, 1)
    names = [f"class {i}" for i in range(10)]
    wrapped = Classifier.wrap(build("lenet5", 10, s).eval(), class_names=names, input=s)
    return replace(wrapped, arch="lenet5")


@pytest.fixture
def labelled() -> Callable[..., LabelledImages]:
    def make(labels: Sequence[int], names: Sequence[str] | None) -> LabelledImages:
        y = torch.tensor(labels, dtype=torch.int64)
        named = None if names is None else tuple(names)
        return LabelledImages(torch.zeros(len(y), 1, 4, 4), y, named, "toy", tuple(range(len(y))))

    return make
