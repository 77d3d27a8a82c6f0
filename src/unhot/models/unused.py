"""Weights that no output depends on: what they hold is kept with the model, and no measure of it can see them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from unhot.models.classifier import Classifier


def unused_weights(model: Classifier, x: Tensor) -> dict[str, int]:
    """Return the parameters and buffers that have no part in the outputs, by name, with how many numbers they hold.

    Those that no gradient of the outputs reaches have none if the outputs stay the same when they are filled with NaN.
    Statistics of batch normalisation are left out.

    Args:
        model: The classifier.
        x: A few inputs (B, C, H, W).
    """
    work = model.trainable(x.device)
    work.module.eval().requires_grad_(True)
    with torch.enable_grad():
        logits = work.logits(x)
        logits.sum().backward()
    before = logits.detach()
    normalising = {
        f"{n}.{b}" for n, m in work.module.named_modules() if isinstance(m, _BatchNorm) for b, _ in m.named_buffers()
    }
    doubtful: dict[str, Tensor] = {n: p for n, p in work.module.named_parameters() if p.grad is None}
    doubtful |= {n: b for n, b in work.module.named_buffers() if n not in normalising and b.is_floating_point()}
    found = {}
    with torch.no_grad():
        for name, weight in doubtful.items():
            kept = weight.clone()
            weight.fill_(torch.nan)
            if torch.equal(work.logits(x), before):
                found[name] = weight.numel()
            weight.copy_(kept)
    return found
