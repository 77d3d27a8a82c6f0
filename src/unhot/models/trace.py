"""Tracing a net as a graph, whatever its code."""

from __future__ import annotations

import base64
import copy
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import save
from torch import Tensor, nn

from unhot.errors import ModelError, first_line
from unhot.models.classifier import Classifier
from unhot.models.graph import LAYERS, GraphNet, references
from unhot.models.head_edits.mask import MaskEdit
from unhot.models.operators import TYPES, operator_of
from unhot.records.graph import Graph, Layer, Step
from unhot.runtime import own_generators
from unhot.runtime.silence import silence

COUNTS = 4, 1, 7  # sizes of the batches on which a graph is compared with its net; it is traced with the first
MOST_CONSTANTS = 2**25  # bytes, so that the text of the graph can be read again
OWN = "weight", "bias", "running_mean", "running_var"  # tensors of a layer that its operator may receive


def graph_of(model: Classifier) -> Graph:
    """Trace the net of a classifier, on a copy of it in eval mode.

    The outputs of the graph are compared with those of the net before it is returned.

    Raises:
        ModelError: The net cannot be traced, with the reason.
    """
    shape = model.input_shape
    if shape is None:
        raise ModelError("the shape of its inputs is not known; give Classifier.wrap an example or an input")
    try:
        net: Any = copy.deepcopy(model.module).cpu().eval()
        net.to(memory_format=torch.contiguous_format)
    except Exception as error:  # the net is the caller's: it may raise anything
        raise ModelError(f"it cannot be copied ({first_line(error)})") from error
    if isinstance(net, GraphNet) and net.unhot_graph.shape == shape and not _difference(net.unhot_graph, net):
        return net.unhot_graph
    if any(isinstance(edit, MaskEdit) and edit.by == "hook" for edit in model.head_edits):
        raise ModelError(f"its head {model.head!r} is not a plain nn.Linear, and its output is masked")
    graph = _written(net, model.head, shape)
    if model.head not in graph.layers:
        raise ModelError(f"its head {model.head!r} is not a plain nn.Linear")
    if problem := _difference(graph, net):
        raise ModelError(problem)
    return graph


def _inputs(net: nn.Module, shape: tuple[int, ...], count: int) -> Tensor:
    """Return random inputs, the same ones every time, in the number type of the weights."""
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
    return x.to(next((p.dtype for p in net.parameters() if p.is_floating_point()), x.dtype))


def _difference(graph: Graph, net: nn.Module) -> str:
    """Return how a graph differs from its net; nothing if it does not."""
    try:
        state = net.state_dict()
        other = GraphNet(graph, state).eval()
        other.load_state_dict(state)
        with own_generators(), torch.no_grad():
            for count in COUNTS:
                x = _inputs(net, graph.shape, count)
                torch.testing.assert_close(other(x.clone()), net(x), equal_nan=True)
    except AssertionError:
        return "its graph does not always return the same as it does"
    except Exception as error:
        return f"it does not run as a graph ({first_line(error)})"
    return ""


def traced(net: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """Trace a net for any number of images, on inputs x (B, C, H, W) of two or more.

    Raises:
        ModelError: It cannot be traced, with the reason.
    """
    # with gradients enabled, torch calls operators that can be differentiated, not its fused ones
    with silence(), own_generators(), torch.enable_grad():
        for strict in (False, True):  # the second way is slower and understands some nets that the first does not
            try:
                batch = ({0: torch.export.Dim.DYNAMIC},)
                return torch.export.export(net, (x,), dynamic_shapes=batch, strict=strict)
            except Exception as error:  # torch and the net raise many kinds
                reason = error
    raise ModelError(f"torch.export cannot trace it ({first_line(reason)})") from reason


def _written(net: nn.Module, head: str, shape: tuple[int, int, int]) -> Graph:
    """Trace a net and write down its calls."""
    program = traced(net, _inputs(net, shape, COUNTS[0]))
    signature = program.graph_signature
    nodes = {n.name: n for n in program.graph.nodes}
    out = nodes.get(str(signature.user_outputs[0])) if len(signature.user_outputs) == 1 else None
    if out is None:
        raise ModelError("it does not return one tensor")
    # a weight of several names is called by one that is not the head's, since the head may be replaced
    parameters = dict(net.named_parameters(remove_duplicate=False))
    ordered = sorted(parameters, key=lambda n: n.rpartition(".")[0] == head)
    called = {id(parameters[n]): n for n in reversed(ordered)}
    tied = {n: called[id(p)] for n, p in parameters.items() if called[id(p)] != n}
    writer = _Writer(net)
    writer.values |= {nodes[n]: {"value": 0} for n in signature.user_inputs if n in nodes}
    for spec in signature.input_specs:
        if spec.target:
            writer.values[nodes[spec.arg.name]] = {"weight": tied.get(spec.target, spec.target)}
    needed = _needed(program, out)
    for node in program.graph.nodes:
        if node in needed and node not in writer.values:
            writer.write(node)
    output = writer.values[out]
    return Graph(
        shape=shape,
        parameters=tuple(parameters),
        tied=tied,
        constants=_packed(program.constants, writer.steps, net.state_dict()),
        layers=writer.layers,
        steps=tuple(writer.steps),
        output=output["value"],  # type: ignore[index, call-overload]
    )


def _needed(program: torch.export.ExportedProgram, out: torch.fx.Node) -> set[torch.fx.Node]:
    """Return the output, the calls that change values in place, and all that these depend on, but no checks."""
    rest = [out, *(n for n in program.graph.nodes if getattr(getattr(n.target, "_schema", None), "is_mutable", False))]
    found = set(rest)
    while rest:
        new = set(rest.pop().all_input_nodes) - found
        found |= new
        rest.extend(new)
    return found


class _Writer:
    """Writes calls down in order.

    Attributes:
        values: The reference to each node in arguments.
        layers: The layers of the graph so far.
        steps: The steps of the graph so far.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.named = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers())
        self.values: dict[torch.fx.Node, JsonValue] = {}
        self.layers: dict[str, Layer] = {}
        self.steps: list[Step] = []

    def write(self, node: torch.fx.Node) -> None:
        """Write a call down; if it is the call of a layer, record that layer."""
        if found := self._layer(node):
            name, self.layers[name] = found
            step = Step(layer=name, args=(self._plain(node.args[0]),))
        else:
            args = tuple(self._plain(a) for a in node.args)
            step = Step(call=_call(node), args=args, kwargs={k: self._plain(a) for k, a in node.kwargs.items()})
        self.steps.append(step)
        self.values[node] = {"value": len(self.steps)}

    def _layer(self, node: torch.fx.Node) -> tuple[str, Layer] | None:
        """Return the layer of the net that a call is, if it is one that can be made again."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        target: Any = node.target
        if not stack or _call(node).split(".")[1] not in ("linear", "conv2d", "batch_norm"):
            return None
        name = stack[-1][0].partition("@")[0]  # called a second time it is name@1
        module = self.net.get_submodule(name)
        kind = next((k for k, (of, _) in LAYERS.items() if isinstance(module, of)), None)
        declared = [a.name for a in target._schema.arguments]
        given = {a.name: a.default_value for a in target._schema.arguments}
        given |= dict(zip(declared, node.args, strict=False)) | node.kwargs
        weights = {o: self._weight(given.get(o)) for o in OWN}
        if kind is None or given.get("training") or any(getattr(module, o, None) is not w for o, w in weights.items()):
            return None
        if weights["weight"] is None and weights["running_mean"] is None:
            return None
        return name, Layer(kind=kind, options={o: self._plain(given[o]) for o in LAYERS[kind][1]})

    def _weight(self, arg: Any) -> Tensor | str | None:
        """Return the weight that an argument is, None for None, and a text for anything else."""
        named = self.values.get(arg) if isinstance(arg, torch.fx.Node) else None
        if isinstance(named, dict) and "weight" in named:
            return self.named.get(str(named["weight"]), "a constant")
        return None if arg is None else "a value"

    def _plain(self, arg: Any) -> JsonValue:
        """Write an argument down, as :class:`unhot.records.graph.Step` says."""
        if isinstance(arg, torch.fx.Node):
            return self.values[arg]
        if isinstance(arg, (list, tuple)):
            return [self._plain(a) for a in arg]
        if arg is None or isinstance(arg, (bool, int, str)):
            return arg
        if isinstance(arg, float):
            return arg if math.isfinite(arg) else {"float": str(arg)}
        if isinstance(arg, torch.device):
            return {"device": "input"}
        for kind, (of, _, _) in TYPES.items():
            if isinstance(arg, of):
                return {kind: str(arg).removeprefix("torch.")}
        raise ModelError(f"it gives an operator a {type(arg).__name__}")


def _call(node: torch.fx.Node) -> str:
    """Return the name of the operator that a node calls."""
    target: Any = node.target
    name = getattr(target, "__name__", "")
    call = f"operator.{name}" if getattr(operator, name, None) is target else str(target)
    try:
        operator_of(call)
    except ValueError as error:
        raise ModelError(str(error)) from error
    return call


def _packed(constants: Mapping[str, Any], steps: list[Step], state: Mapping[str, Tensor]) -> str:
    """Return the constants that are used and not stored with the weights, as base64; empty if there are none."""
    used = {w for s in steps for kind, w in references([*s.args, *s.kwargs.values()]) if kind == "weight"}
    found = {n: t for n, t in constants.items() if n in used and n not in state}
    if sum(t.nbytes for t in found.values() if isinstance(t, Tensor)) > MOST_CONSTANTS:
        raise ModelError(f"it holds tensors of more than {MOST_CONSTANTS:,} bytes that are no buffers; register them")
    if odd := [n for n, t in found.items() if not isinstance(t, Tensor)]:
        raise ModelError(f"it holds {odd[0]}, which is not a tensor")
    return (
        base64.b64encode(save({n: t.detach().contiguous().clone() for n, t in found.items()})).decode() if found else ""
    )
