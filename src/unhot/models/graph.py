"""Graphs: a net as the list of operators that it calls, so that it runs without the code that defined it.

A graph is plain data: it can name only the operators of :mod:`unhot.models.operators` and the layers listed here, which
compute tensors from tensors and do nothing else. So a bundle of unknown origin runs no code of its own. The
arguments of each step are checked against the schema of its operator before anything is run, and its memory and work
against :mod:`unhot.models.budget` before it is called for inputs of a new shape. Files of ``torch.export`` are not
used: loading one unpickles and evaluates its content, and another version of torch may not read it.
"""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.utils import skip_init

from unhot.errors import ModelError, UnhotError, first_line
from unhot.models.budget import Budget, of_layer, tensors_in
from unhot.models.operators import Kind, Known, check_argument, check_call, operator_of, signature_of, writes
from unhot.records.graph import Graph, Layer, Step

FAILURES = RuntimeError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError  # of operators
# layers that methods precondition or replace, with the options that their weights do not determine
LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ()),
    "Conv2d": (nn.Conv2d, ("stride", "padding", "dilation", "groups")),
    "BatchNorm1d": (nn.BatchNorm1d, ("momentum", "eps")),
    "BatchNorm2d": (nn.BatchNorm2d, ("momentum", "eps")),
}
DEEPEST = 64  # maximum number of parts of a dotted name


class GraphNet(nn.Module):
    """A net that runs a graph.

    Its weights have the names of the traced net, and its linear layers, convolutions and batch normalisations are
    modules of torch. Everything else always runs as in eval mode: dropout stays off in train mode.

    Args:
        graph: The graph.
        state: Weights of the shapes and types that the net is to have; they are not copied.

    Raises:
        ValueError: The graph cannot be run.
    """

    def __init__(self, graph: Graph, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        constants = load(base64.b64decode(graph.constants)) if graph.constants else {}
        _check(graph, {*state, *constants})
        for name, layer in graph.layers.items():
            _put(self, name, _made(layer, name, state))
        owned, parameters = set(self.state_dict()), set(graph.parameters)
        for name, value in state.items():
            if name in owned or name in graph.tied:
                continue
            empty = torch.empty_like(value)
            _put(self, name, nn.Parameter(empty, value.is_floating_point()) if name in parameters else empty)
        for name, same in graph.tied.items():
            _put(self, name, self.get_parameter(same))
        for name, value in constants.items():
            _put(self, name, value, persistent=False)
        self.unhot_graph = graph  # names that no layer of a net has
        self.unhot_spent = _last_uses(graph)
        self.unhot_copies = _writes_to_input(graph)
        # modules, so that what they give is recorded like the outputs of layers
        self.unhot_calls = nn.ModuleDict({str(i): _Call(graph.steps[i].call) for i in _weighted(graph, self)})
        self.unhot_within = set[tuple[Any, ...]]()  # shapes and types of inputs that are within the budget

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of inputs x (B, C, H, W).

        Raises:
            ModelError: The inputs have another shape than the net was traced with, or a step fails.
        """
        shape, step = self.unhot_graph.shape, None
        if x.shape[1:] != shape:
            raise ModelError(f"This net takes inputs of shape (B, {', '.join(map(str, shape))}), not {tuple(x.shape)}.")
        # in tracing there are no sizes yet
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        like = None if torch.compiler.is_compiling() or tracing else (x.shape, x.dtype)
        meter = None if like is None or like in self.unhot_within else _Meter(self, x)
        values: list[Any] = [x.clone() if self.unhot_copies else x]
        try:
            for i, (step, spent) in enumerate(zip(self.unhot_graph.steps, self.unhot_spent, strict=True)):
                args = [self._given(a, values, x.device) for a in step.args]
                kwargs = {k: self._given(a, values, x.device) for k, a in step.kwargs.items()}
                if meter is not None:
                    meter.before(step, args, kwargs)
                values.append(self._callee(i, step)(*args, **kwargs))
                if meter is not None:
                    meter.after(values, spent)
                for unneeded in spent:
                    values[unneeded] = None  # to free its memory
        except (UnhotError, torch.OutOfMemoryError):
            raise
        except FAILURES as error:
            called = "" if step is None else f", calling {step.layer or step.call}"
            raise ModelError(
                f"The graph of this net fails on inputs of shape {tuple(x.shape)}{called}: {first_line(error)}."
            ) from error
        if like is not None:
            self.unhot_within.add(like)
        out: Tensor = values[self.unhot_graph.output]
        return out

    def _callee(self, i: int, step: Step) -> Callable[..., Any]:
        """Return what a step calls."""
        if step.layer is not None:
            return self.get_submodule(step.layer)
        return self.unhot_calls[str(i)] if str(i) in self.unhot_calls else operator_of(step.call)

    def _given(self, arg: Any, values: list[Any], device: torch.device) -> Any:
        """Return the value of an argument."""
        if isinstance(arg, list):
            return [self._given(a, values, device) for a in arg]
        if not isinstance(arg, dict):
            return arg
        [(kind, what)] = arg.items()
        if kind == "value":
            return values[what]
        if kind == "weight":
            return operator.attrgetter(what)(self)
        if kind == "device":
            return device
        return float(what) if kind == "float" else getattr(torch, what)


class _Call(nn.Module):
    """Calls an operator."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the operator gives."""
        return operator_of(self.call)(*args, **kwargs)


class _Meter:
    """Checks the steps of a net while it runs on inputs of a new shape."""

    def __init__(self, net: GraphNet, x: Tensor) -> None:
        self.net, self.budget = net, Budget(x)
        self.kept = {t.untyped_storage()._cdata: n for n, t in [*net.named_parameters(), *net.named_buffers()]}

    def before(self, step: Step, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Refuse a step that needs too much, or writes to weights.

        Raises:
            ValueError: With the reason.
        """
        if any(t.numel() == 0 for t in tensors_in([*args, *kwargs.values()])):
            raise ValueError("it computes with tensors of no elements")
        if step.layer is not None:
            self.budget.take(*of_layer(self.net.get_submodule(step.layer), *args))
        elif step.call.startswith("aten."):
            declared, _ = signature_of(step.call)
            given = {n: a.default for n, a in declared.items()} | dict(zip(declared, args, strict=False)) | kwargs
            name = step.call.split(".")[1]
            if writes(step.call) and (kept := self.kept.get(args[0].untyped_storage()._cdata)):
                raise ValueError(f"it writes to the weights {kept!r}")
            self.budget.take(name, given)

    def after(self, values: list[Any], spent: list[int]) -> None:
        """Count the result of a step, and the values that are no longer needed."""
        self.budget.keep(values[-1])
        for i in spent:
            self.budget.drop(values[i])


def rebuilt(graph: Graph, state: Mapping[str, Tensor], where: str) -> GraphNet:
    """Make the net of a graph; its weights are still to be loaded.

    Args:
        graph: The graph.
        state: The weights, for their shapes.
        where: Name of the file in error messages.

    Raises:
        ModelError: The graph cannot be run with weights like these.
    """
    try:
        return GraphNet(graph, state)
    except Exception as error:  # the file may hold anything
        raise ModelError(f"{where} is not a graph that can be run: {first_line(error)}.") from error


def example_of(net: GraphNet) -> Tensor:
    """Return two inputs (2, C, H, W) of numbers from 0 to 1, the same ones every time, in the weights' number type."""
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.rand(2, *net.unhot_graph.shape, generator=torch.Generator().manual_seed(0)).to(like)


def _check(graph: Graph, weights: set[str]) -> None:
    """Refuse a graph that refers to values, weights or layers that it does not have."""
    if deep := [n for n in [*weights, *graph.layers, *graph.tied] if n.count(".") >= DEEPEST]:
        raise ValueError(f"the name {deep[0][:60]}... has more than {DEEPEST} parts")
    kinds: list[Kind] = ["tensor"]
    for i, step in enumerate(graph.steps):
        known = Known(kinds, weights)
        for kind, what in references([*step.args, *step.kwargs.values()]):
            if not known.has(kind, what):
                raise ValueError(f"step {i} has no {kind} {what!r}")
        try:
            if step.layer is None:
                kinds.append(check_call(step.call, step.args, step.kwargs, known))
                continue
        except ValueError as error:
            raise ValueError(f"step {i}: {error}") from error
        if step.layer not in graph.layers:
            raise ValueError(f"step {i} calls {step.layer!r}, which is not among its layers")
        if step.kwargs or [known.kind_of(a) for a in step.args] != ["tensor"]:
            raise ValueError(f"step {i} does not give the layer {step.layer!r} one value")
        kinds.append("tensor")
    if graph.output >= len(kinds) or kinds[graph.output] != "tensor":
        raise ValueError(f"it has no value {graph.output} to return")


def _writes_to_input(graph: Graph) -> bool:
    """Return whether a step may change the inputs of the net in place; any result but a layer's may share memory."""
    same = {0}
    for i, step in enumerate(graph.steps, 1):
        if step.layer is None:
            read = [w for kind, w in references([*step.args, *step.kwargs.values()]) if kind == "value"]
            if writes(step.call) and step.args[0] in [{"value": v} for v in same]:
                return True
            if same.intersection(read):
                same.add(i)
    return False


def references(arg: Any) -> Iterable[tuple[str, Any]]:
    """Yield the references in an argument, as (kind, name)."""
    if isinstance(arg, dict):
        if len(arg) != 1:
            raise ValueError(f"{arg} is not an argument")
        yield next(iter(arg.items()))
    elif isinstance(arg, list):
        for a in arg:
            yield from references(a)


def _weighted(graph: Graph, net: nn.Module) -> list[int]:
    """Return the steps of operators that compute with the inputs and with weights of two or more dimensions."""
    flows, weights, found = {0}, set[int](), list[int]()
    for i, step in enumerate(graph.steps):
        read = list(references([*step.args, *step.kwargs.values()]))
        values = {what for kind, what in read if kind == "value"}
        wide = any(kind == "weight" and operator.attrgetter(what)(net).ndim > 1 for kind, what in read)
        if values & flows:
            flows.add(i + 1)
            if step.layer is None and (wide or values & weights):
                found.append(i)
        elif wide or values & weights:
            weights.add(i + 1)
    return found


def _last_uses(graph: Graph) -> list[list[int]]:
    """Return for each step the values that no later step needs."""
    last = {
        int(what): i
        for i, step in enumerate(graph.steps)
        for kind, what in references([*step.args, *step.kwargs.values()])
        if kind == "value"
    }
    return [[v for v, at in last.items() if at == i and v != graph.output] for i in range(len(graph.steps))]


def _made(layer: Layer, name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Make a layer of the shape of its weights, which are still to be loaded."""
    kind, takes = LAYERS[layer.kind]
    if unknown := set(layer.options) - set(takes):
        raise ValueError(f"{layer.kind} {name!r} has no options {sorted(unknown)}")
    worded = isinstance(layer.options.get("padding"), str)
    call = (
        "aten.conv2d.padding" if worded else "aten.conv2d.default" if "groups" in takes else "aten.batch_norm.default"
    )
    for option, value in layer.options.items():
        check_argument(call, signature_of(call)[0][option], value, Known((), set()))
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in layer.options.items()}
    weight = state.get(f"{name}.weight", state.get(f"{name}.running_mean"))
    if weight is None:
        raise ValueError(f"there are no weights of {name!r}")
    sizes: tuple[Any, ...] = (len(weight),)
    if layer.kind.startswith("BatchNorm"):
        options["affine"] = f"{name}.weight" in state
    else:
        options["bias"] = f"{name}.bias" in state
        sizes = (
            weight.shape[1] * options.get("groups", 1),
            len(weight),
            *([tuple(weight.shape[2:])] if weight.ndim > 2 else []),
        )
    made: nn.Module = skip_init(kind, *sizes, dtype=weight.dtype, **options)
    return made


def _put(net: nn.Module, name: str, what: Tensor | nn.Module, persistent: bool = True) -> None:
    """Give a net a layer, a parameter or a buffer of a dotted name, making the modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if part not in net._modules:
            net.add_module(part, nn.Module())
        net = net.get_submodule(part)
    if isinstance(what, nn.Module):
        net.add_module(last, what)
    elif isinstance(what, nn.Parameter):
        net.register_parameter(last, what)
    else:
        net.register_buffer(last, what, persistent)
