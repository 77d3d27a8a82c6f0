"""TorchScript, by tracing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unhot.errors import ModelError, first_line
from unhot.models.formats.exports.comparison import random_inputs
from unhot.models.formats.exports.target import Run, Target
from unhot.models.graph import GraphNet
from unhot.records.graph import Step
from unhot.runtime import own_generators
from unhot.runtime.silence import silence


class TorchScript(Target):
    """A file for ``torch.jit.load``, whose net takes inputs (B, C, H, W) and returns logits (B, K)."""

    suffixes: ClassVar[tuple[str, ...]] = (".pt", ".ts")

    def write(self, path: Path) -> None:
        """Trace the net and write it."""
        net, x = _traceable(self.model.module), random_inputs(self.model, 4)
        try:
            with silence(), own_generators(), torch.no_grad():
                traced = torch.jit.trace(net, x, check_trace=False)
                torch.jit.save(traced, path)
        except OSError:
            raise
        except Exception as error:  # torch and the net raise many kinds
            raise ModelError(
                f"This net cannot be exported as torchscript: torch.jit.trace cannot trace it ({first_line(error)}). "
                "Export it as pt2."
            ) from error

    def load(self, path: Path) -> Run:
        """Load the net."""
        with silence():
            net: Run = torch.jit.load(path, map_location="cpu")
        return net


class _TraceableNet(GraphNet):
    """A graph whose sizes torch.jit.trace follows, so that it is traced for batches of any size.

    ``torch.ops`` takes sizes as Python numbers, which tracing keeps as constants. The methods of tensors, and functions
    of torch, take them as tensors while they are traced.
    """

    def _callee(self, i: int, step: Step) -> Callable[..., Any]:
        usual = super()._callee(i, step)
        name = step.call.split(".")[1] if step.call.startswith("aten.") else ""
        if name == "sym_size":
            return Tensor.size
        method = getattr(Tensor, name, None) or getattr(torch, name, None)
        if method is None:
            return usual
        return lambda *args, **kwargs: (method if _has_size(args) else usual)(*args, **kwargs)


def _has_size(args: tuple[Any, ...]) -> bool:
    """Return whether a size that is traced is among some arguments: a number that is a tensor."""
    return any(isinstance(a, Tensor) and a.ndim == 0 and not a.is_floating_point() for a in _flat(args[1:]))


def _flat(args: Any) -> Iterator[Any]:
    for a in args:
        if isinstance(a, list | tuple):
            yield from _flat(a)
        else:
            yield a


def _traceable(net: nn.Module) -> nn.Module:
    """Return a net that can be traced for batches of any size."""
    if not isinstance(net, GraphNet):
        return net
    state = net.state_dict()
    made = _TraceableNet(net.unhot_graph, state).eval()
    made.load_state_dict(state)
    return made
