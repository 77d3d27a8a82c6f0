"""Split points: the places in a net that all of an image flows through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unhot.models.classifier import Classifier
from unhot.models.head import flowing


def split_points(model: Classifier, layers: Sequence[str], x: Tensor) -> dict[str, str]:
    """Return for each of some layers the last split point that is passed no later than the layer.

    A split point is a module whose input alone decides what the net returns: of a residual block that is the whole
    block, since what flows into its layers goes past them too. The net itself is one. Others are tried: with what flows
    into one for an image put in the place of what flows into it for the negative, the net must return its logits.

    Args:
        model: The classifier, in eval mode.
        layers: Names, in the order they are called.
        x: An input (1, C, H, W).
    """
    with torch.no_grad():
        called, flows = _calls(model, x)
        wanted = model.logits(x)
        last, found = "", {}
        for name in called:
            if name in flows and _decides(model, name, flows[name], 1 - x, wanted):
                last = name
            if name in layers:
                found[name] = last
    return {name: found[name] for name in layers}


def _decides(model: Classifier, name: str, flow: Tensor, x: Tensor, wanted: Tensor) -> bool:
    """Return whether a module's input (B, ...) alone decides the logits (B, K), whatever x (1, C, H, W) is."""
    with model.replacing(name, flow):
        try:
            logits = model.logits(x)
        except Exception:  # the net is the caller's: it may check what it is given
            return False
    return torch.allclose(logits, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def _calls(model: Classifier, x: Tensor) -> tuple[list[str], dict[str, Tensor]]:
    """Return the modules in the order they are called, and what flows into those that are the first to get it."""
    called: list[str] = []
    flows: dict[str, Tensor] = {}

    def hook(name: str) -> Any:
        def seen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            called.append(name)
            flow = flowing(args, kwargs) if args or kwargs else None
            if isinstance(flow, Tensor) and all(flow is not f for f in flows.values()):
                flows[name] = flow

        return seen

    modules = dict(model.module.named_modules())
    handles = [m.register_forward_pre_hook(hook(n), with_kwargs=True) for n, m in modules.items()]
    try:
        model.logits(x)
    finally:
        for handle in handles:
            handle.remove()
    return called, flows
