"""The copy of a model on which a method works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unhot.data.samples import Samples
from unhot.errors import DataError
from unhot.models.classifier import Classifier
from unhot.models.head import eval_mode
from unhot.models.plain import copied
from unhot.runtime import Runtime


def opened(
    model: nn.Module | Classifier, samples: Samples, head: str | None, runtime: Runtime
) -> tuple[Classifier, Tensor]:
    """Return a checked copy of the model, and the inputs (N, C, H, W) that the samples are to it."""
    if not isinstance(samples, Samples) or len(samples) == 0:
        got = "none" if isinstance(samples, Samples) else type(samples).__name__
        raise DataError(f"Expected images of the class, from unhot.draw or unhot.folder. Got {got}.")
    spec = model.input if isinstance(model, Classifier) else None
    x = samples.images.inputs(torch.arange(len(samples)), spec, runtime.device)
    return Classifier.wrap(_copied(model, runtime.device), example=x[:2], head=head).with_example_shape(x), x


def _copied(model: nn.Module | Classifier, device: torch.device) -> nn.Module | Classifier:
    """Return a deep copy on the device that shares nothing with the caller's model, not even gradients."""
    if isinstance(model, Classifier):
        return model.copy(device)
    return copied(model, device) if isinstance(model, nn.Module) else model


@contextmanager
def working(module: nn.Module) -> Iterator[None]:
    """Put a net in eval mode with gradients on all weights; afterwards restore its flags and drop the gradients."""
    grads = {p: p.requires_grad for p in module.parameters()}
    module.requires_grad_(True)
    try:
        with eval_mode(module):
            yield
    finally:
        for p, wanted in grads.items():
            p.requires_grad_(wanted)
            p.grad = None
