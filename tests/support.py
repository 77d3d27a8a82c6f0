"""What many tests need: a runtime on the CPU, and a toy net that is made to forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unhot.data.containers.listed import read_contents
from unhot.data.images import LabelledImages
from unhot.data.source import Source
from unhot.methods.base import ForgetResult, Method
from unhot.runtime import Runtime
from unhot.testing import Toy

DEVICE = torch.device("cpu")
CPU = Runtime(DEVICE)


def forget(
    method: type[Method],
    toy: Toy,
    *classes: int,
    seed: int = 0,
    retain: tuple[Tensor, Tensor] | None = None,
    runtime: Runtime = CPU,
    **settings: Any,
) -> ForgetResult:
    """Run a method on a toy net, with all images of the other classes if it reads these and no others are given."""
    if retain is None and "retain" in method.uses:
        retain = toy.retain(*classes)
    return method.of(settings)(toy.model, toy.samples(*classes), retain=retain, seed=seed, runtime=runtime)


def for_epochs(load: Callable[..., Source], epochs: int) -> Callable[..., Source]:
    """Let a data set say that nets train on it for a few epochs only."""
    return lambda *given, **more: dataclasses.replace(load(*given, **more), epochs=epochs)


def class_images(root: Path) -> LabelledImages:
    """Read a folder of class folders, which has no splits."""
    contents = read_contents(root)
    assert contents.labelled
    assert contents.whole is not None
    return contents.whole
