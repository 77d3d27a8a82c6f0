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
    with torch.no_grad():
        calls, wanted = _candidates(model, x)
        for name, flow in calls.items():
            if flow is not None and _decides(model, name, flow, 1 - x, wanted):
                last = name
            found[name] = last
    return {name: found[name] for name in layers}


def replay_point(model: Classifier, layer: str, x: Tensor) -> str:
    """Return the last replay point that is passed no later than a layer; see :func:`replay_points`, which tests all."""
    with torch.no_grad():
        calls, wanted = _candidates(model, x)
        names = list(calls)
        for name in reversed(names[: names.index(layer) + 1]):
            flow = calls[name]
            if flow is not None and _decides(model, name, flow, 1 - x, wanted):
                return name
    return ""


def _candidates(model: Classifier, x: Tensor) -> tuple[dict[str, Tensor | None], Tensor]:
    """Return the input of each module, in the order in which they are called, and the logits.

    The input is None where a module is called several times, or has the input of one around it or before it.
    """
    calls, found = _calls(model, x), dict[str, Tensor | None]()
    seen: list[tuple[object, Tensor | None]] = []
    for name, flows in calls.items():
        given, flow = flows[0]
        inner = flow is not None and any(
            given is other and then is not None and torch.equal(flow, then) for other, then in seen
        )
        seen.append((given, flow))
        found[name] = None if inner or len(flows) > 1 else flow
    return found, model.logits(x)


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
