"""Weights that no output depends on: what they hold is kept with the model, and no measure of it can see them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from unhot.data.images import at_once
from unhot.models.classifier import Classifier

FILLS = (1.0, 1e3)  # standard deviations of the numbers


def unused_weights(model: Classifier, x: Tensor) -> dict[str, int]:
    """Return the parameters and buffers that have no part in the outputs, by name, with how many numbers they hold.

    Those that no gradient of the outputs reaches have none if the outputs stay the same whatever numbers they are
    filled with. Statistics of batch normalisation are left out.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).
    """
    work = model.trainable(x.device)
    work.module.eval().requires_grad_(True)
    parts, before = x.split(at_once(x)), list[Tensor]()
    with torch.enable_grad():
        for some in parts:
            logits = work.logits(some)
            logits.sum().backward()
            before.append(logits.detach())
    normalising = {
        f"{n}.{b}" for n, m in work.module.named_modules() if isinstance(m, _BatchNorm) for b, _ in m.named_buffers()
    }
    parameters = dict(work.module.named_parameters())
    doubtful: dict[str, Tensor] = {n: p for n, p in parameters.items() if p.grad is None or not p.grad.any()}
    doubtful |= {n: b for n, b in work.module.named_buffers() if n not in normalising and b.is_floating_point()}
    found = {}
    with torch.no_grad():
        for name, weight in doubtful.items():
            kept = weight.clone()
            alike = (all(map(torch.equal, map(work.logits, parts), before)) for _ in _filled(weight))
            if all(alike):
                found[name] = weight.numel()
            weight.copy_(kept)
    return found


def _filled(weight: Tensor) -> Iterator[None]:
    """Fill a tensor, in place, with other numbers: small and large, of either sign."""
    generator = torch.Generator().manual_seed(0)
    for scale in FILLS:
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
        yield
