"""Plain nets: nets without the wrappers of torch and without adapters of PEFT, and copies of them.

``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` and ``AveragedModel`` wrap a net, or parts of it, which
renames the layers and hides them from hooks; the plain net inside has the same weights and outputs. Adapters keep the
weights that they change, and a second head, beside what is used: they are merged, so that a class is gone from all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unhot.errors import ModelError, first_line, raise_all
from unhot.models.head import replace_layer
from unhot.models.weights import odd_weights

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
INSIDE = ("module", "_orig_mod")  # names of the net inside; the second is torch.compile's


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the plain net of the same weights; the net itself if it has no wrappers.

    A net with wrapped or compiled parts is copied around the same weights: the caller's is not changed. One with
    adapters has other weights once they are merged, and is copied whole.
    """
    while (inner := _inner(module)) is not None:
        module = inner
    parts = list(module.modules())
    if any(_merge_of(m) for m in parts):
        return unwrapped(_merged(module))
    if all(_inner(m) is None and m._compiled_call_impl is None for m in parts):
        return module
    memo: dict[int, object] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    for part in reversed(parts):  # inner modules come before their wrappers
        if (inner := _inner(part)) is not None:
            memo[id(part)] = copy.deepcopy(inner, memo)
    plain: nn.Module = copy.deepcopy(module, memo)  # without the effect of nn.Module.compile
    return plain


def plain_name(module: nn.Module, layer: str) -> str:
    """Return the name of a layer of a net in its plain net, which may lack it."""
    if layer in dict(module.named_modules()):
        return layer
    return ".".join(part for part in layer.split(".") if part not in INSIDE)


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the net inside a wrapper; None if the module is no wrapper."""
    if isinstance(module, WRAPPERS):
        inner: nn.Module = module.module
        return inner
    compiled = getattr(module, "_orig_mod", None)  # of torch.compile, whose class takes seconds to import
    return compiled if isinstance(compiled, nn.Module) else None


def _merge_of(module: Any) -> Callable[[], nn.Module] | None:
    """Return what makes a plain net of a net of PEFT, or a plain layer of a layer with an adapter; None of others."""
    if hasattr(module, "peft_config") and callable(whole := getattr(module, "merge_and_unload", None)):
        return cast(Callable[[], nn.Module], whole)
    if isinstance(getattr(module, "base_layer", None), nn.Module) and callable(merge := getattr(module, "merge", None)):
        return lambda: merge() or module.get_base_layer()
    return None


def _merged(module: nn.Module) -> nn.Module:
    """Return a copy of a net in which every adapter of PEFT is merged into the weights that it changes.

    Raises:
        ModelError: One cannot be merged, or is switched off.
    """
    if any(getattr(m, "disable_adapters", False) is True for m in module.modules()):
        raise ModelError(
            "The model does not fit: its adapters of PEFT are switched off. Switch them on, or give the net without "
            "them, which model.unload() returns."
        )
    try:
        found = copy.deepcopy(module)
        while (
            part := next(((n, merge) for n, m in found.named_modules() if (merge := _merge_of(m))), None)
        ) is not None:
            name, merge = part
            if name:
                replace_layer(found, name, merge())
            else:
                found = merge()
    except Exception as error:  # of PEFT, with kinds of adapters that no weights stand for
        raise ModelError(
            f"The model does not fit: its adapters of PEFT cannot be merged ({first_line(error)}). Give a net whose "
            "own weights were trained."
        ) from error
    return found


def branched(module: nn.Module, layer: str) -> nn.Module:
    """Return a copy of a plain net that shares all weights and buffers but those of one layer, by dotted name."""
    head = module.get_submodule(layer)
    own = {id(t) for t in chain(head.parameters(), head.buffers())}
    shared = (t for t in chain(module.parameters(), module.buffers()) if id(t) not in own)
    branch: nn.Module = copy.deepcopy(module, {id(t): t for t in shared})
    return branch


def copied(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a deep copy of the plain net on a device, which shares nothing with it.

    Raises:
        ModelError: It cannot be copied, or its weights are of a kind that is not supported; every reason is listed.
    """
    plain = unwrapped(module)
    raise_all(ModelError, "The model does not fit", odd_weights(plain))
    try:
        return copy.deepcopy(plain).to(device)
    except Exception as error:  # the net is the caller's: it may hold anything
        raise ModelError(
            f"The model does not fit: it cannot be copied with copy.deepcopy ({first_line(error)}). Remove the "
            "parts that cannot be copied."
        ) from error
