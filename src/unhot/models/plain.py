"""Plain nets: what torch puts around a net and into its weights, taken off again, and copies that share nothing.

A net enters through here. ``torch.compile``, ``DataParallel``, ``DistributedDataParallel`` and ``AveragedModel`` put a
module around another one, or around parts of it, which renames the layers and hides them from hooks; the plain net
inside has the same weights and returns the same.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unhot.errors import ModelError, first_line, raise_all
from unhot.models.weights import odd_weights

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
INSIDE = ("module", "_orig_mod")  # what the net inside is called; the second is of torch.compile


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the plain net of the same weights; the net itself where nothing is around it or in it.

    A net with wrapped or compiled parts is built anew around the same weights: the caller's is left as it is.
    """
    while (inner := _inner(module)) is not None:
        module = inner
    parts = list(module.modules())
    if all(_inner(m) is None and m._compiled_call_impl is None for m in parts):
        return module
    memo: dict[int, object] = {id(t): t for t in chain(module.parameters(), module.buffers())}
    for part in reversed(parts):  # what is inside a wrapper comes before the wrapper
        if (inner := _inner(part)) is not None:
            memo[id(part)] = copy.deepcopy(inner, memo)
    plain: nn.Module = copy.deepcopy(module, memo)  # which leaves out what nn.Module.compile put there
    return plain


def plain_name(module: nn.Module, layer: str) -> str:
    """Return what a layer of a net is called in its plain net, in which it may not be there."""
    if layer in dict(module.named_modules()):
        return layer
    return ".".join(part for part in layer.split(".") if part not in INSIDE)


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the net inside a wrapper; None if it is none."""
    if isinstance(module, WRAPPERS):
        inner: nn.Module = module.module
        return inner
    compiled = getattr(module, "_orig_mod", None)  # of torch.compile, whose class takes seconds to import
    return compiled if isinstance(compiled, nn.Module) else None


def branched(module: nn.Module, layer: str) -> nn.Module:
    """Return a copy of a plain net around the same weights and buffers, but for those of one layer, by dotted name."""
    head = module.get_submodule(layer)
    own = {id(t) for t in chain(head.parameters(), head.buffers())}
    shared = (t for t in chain(module.parameters(), module.buffers()) if id(t) not in own)
    branch: nn.Module = copy.deepcopy(module, {id(t): t for t in shared})
    return branch


def copied(module: nn.Module, device: torch.device) -> nn.Module:
    """Return a deep copy of the plain net on a device, which shares nothing with it.

    Raises:
        ModelError: It cannot be copied, or its weights not be computed with; every reason is listed.
    """
    plain = unwrapped(module)
    raise_all(ModelError, "The model does not fit", odd_weights(plain))
    try:
        return copy.deepcopy(plain).to(device)
    except Exception as error:  # the net is the caller's: it may hold anything
        raise ModelError(
            f"The model does not fit: it cannot be copied with copy.deepcopy ({first_line(error)}). Take what cannot "
            "be copied out of the net."
        ) from error
