"""Replay points: modules of a net whose input alone determines its output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unhot.models.classifier import Classifier
from unhot.models.head import flowing


def replay_points(model: Classifier, layers: Sequence[str], x: Tensor) -> dict[str, str]:
    """Return for each of some layers the last replay point that is passed no later than the layer.

    A replay point is a module that is called once and whose input alone determines the output of the net. In a residual
    block it is the whole block, since its input also bypasses its layers. The net itself is one. Others are tested:
    when the net runs on the negative of an image, but the input of the module is replaced by that for the image, it
    must return the logits of the image.

    Args:
        model: The classifier, in eval mode.
        layers: Names of layers, in the order in which they are called.
        x: An input (1, C, H, W).
    """
    last, found = "", {}
    seen: list[tuple[object, Tensor | None]] = []
    with torch.no_grad():
        calls, wanted = _calls(model, x), model.logits(x)
        for name, flows in calls.items():
            given, flow = flows[0]
            # a module around it, or before it, has the same input
            inner = flow is not None and any(
                given is other and then is not None and torch.equal(flow, then) for other, then in seen
            )
            if flow is not None and len(flows) == 1 and not inner:
                last = name if _decides(model, name, flow, 1 - x, wanted) else last
            seen.append((given, flow))
            found[name] = last
    return {name: found[name] for name in layers}


def _decides(model: Classifier, name: str, flow: Tensor, x: Tensor, wanted: Tensor) -> bool:
    """Return whether a module's input (B, ...) alone determines the logits (B, K), whatever x (1, C, H, W) is."""
    with model.replacing(name, flow):
        try:
            logits = model.logits(x)
        except Exception:  # the net is the caller's: it may check its inputs
            return False
    return torch.allclose(logits, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def _calls(model: Classifier, x: Tensor) -> dict[str, list[tuple[object, Tensor | None]]]:
    """Return the inputs of each module in each of its calls, in the order of their first calls.

    Each comes with a copy, if it is a tensor, since the net may change it in place later.
    """
    calls: dict[str, list[tuple[object, Tensor | None]]] = {}

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
        given = flowing(args, kwargs) if args or kwargs else None
        calls.setdefault(name, []).append((given, given.clone() if isinstance(given, Tensor) else None))

    with ExitStack() as hooks:
        for name, module in model.module.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(record, name=name), with_kwargs=True))
        model.logits(x)
    return calls
