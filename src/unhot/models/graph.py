"""Graphs: a net written down as the operators that it calls, so that it runs without the code that defined it.

A graph is plain data: it can name only the operators and layers listed here, which compute tensors from tensors and do
nothing else. So a bundle of unknown origin runs no code of its own. The files of ``torch.export``
would not do: to load one is to unpickle and to evaluate what is in it, and another version of torch may not read it.
"""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field, JsonValue
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.utils import skip_init

from unhot.errors import ModelError
from unhot.record import Record, Stored

ARITHMETIC = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg", "getitem"})  # of sizes, and of several results
OPERATORS = frozenset(  # with those of the same name that change their first argument in place
    """
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add addbmm addcdiv addcmul addmm alias all amax amin
    any arange argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bilinear bitwise_and bitwise_not bitwise_or bitwise_xor bmm broadcast_tensors broadcast_to bucketize cat cdist
    ceil celu channel_shuffle chunk clamp clamp_max clamp_min clone col2im concat constant_pad_nd contiguous conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copysign cos cosh
    cosine_similarity cross cummax cummin cumprod cumsum detach diagonal diff div dot dropout einsum elu embedding eq
    erf erfc exp exp2 expand expand_as expm1 eye feature_dropout fft_fft fft_fft2 fft_ifft fft_ifft2 fft_irfft
    fft_irfft2 fft_rfft fft_rfft2 fill flatten flip floor floor_divide fmod frac full full_like gather ge gelu glu
    grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardswish hardtanh im2col imag index index_add
    index_put index_select inner instance_norm isfinite isinf isnan kron kthvalue layer_norm le leaky_relu lerp
    lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax
    logaddexp logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max max_pool1d
    max_pool2d max_pool2d_with_indices max_pool3d maximum mean median meshgrid min minimum mish mm movedim mul mv
    nan_to_num narrow native_group_norm native_layer_norm ne neg new_full new_ones new_zeros norm one_hot ones
    ones_like outer pad permute pixel_shuffle pixel_unshuffle polar pow prelu prod real reciprocal reflection_pad1d
    reflection_pad2d relu relu6 remainder repeat repeat_interleave replication_pad1d replication_pad2d reshape
    reshape_as rms_norm roll rot90 round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_add
    searchsorted select select_scatter selu sigmoid sign silu sin sinh slice slice_scatter softmax softplus softshrink
    sort split split_with_sizes sqrt square squeeze stack std std_mean sub sum swapaxes sym_size t take_along_dim tan
    tanh tensor_split tensordot threshold tile to topk transpose tril triu trunc type_as unbind unflatten unfold
    unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d var
    var_mean view view_as view_as_complex view_as_real where xlogy zeros zeros_like
    """.split()  # noqa: SIM905 - one a line would be pages
)
# layers that a method must find as such, to precondition them or to replace them, and what their weights do not tell
LAYERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Linear": (nn.Linear, ()),
    "Conv2d": (nn.Conv2d, ("stride", "padding", "dilation", "groups")),
    "BatchNorm1d": (nn.BatchNorm1d, ("momentum", "eps")),
    "BatchNorm2d": (nn.BatchNorm2d, ("momentum", "eps")),
}
TYPES: dict[str, type] = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


class Layer(Stored):
    """A layer that is made again as a module of torch, with the weights of its name.

    Attributes:
        kind: Which.
        options: Keyword arguments of it that its weights do not tell.
    """

    kind: Literal["Linear", "Conv2d", "BatchNorm1d", "BatchNorm2d"]
    options: dict[str, JsonValue] = Field(default_factory=dict)


class Step(Stored):
    """A call. Step i gives value i + 1; value 0 is the input of the net.

    In arguments, ``{"value": i}`` is that value, ``{"weight": name}`` a parameter, buffer or constant, ``{"device":
    "input"}`` where the input is, and ``{"float": "inf"}`` a number that JSON has not; ``{"dtype": name}``,
    ``{"layout": name}`` and ``{"memory_format": name}`` are those of torch.

    Attributes:
        call: ``aten.NAME.OVERLOAD`` or ``operator.NAME``; or, with ``layer``, nothing.
        layer: Dotted name of one of the graph's layers.
    """

    call: str = ""
    layer: str | None = None
    args: tuple[JsonValue, ...] = ()
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)


class Graph(Record):
    """``graph.json``: a net as the operators that it calls in eval mode, without its weights.

    Attributes:
        shape: (C, H, W) of the inputs that it was written down with.
        parameters: Which of the weights are parameters; the others are buffers.
        tied: Parameters that are another one under a second name, and that one.
        constants: Tensors that are not kept with the weights, as the base64 of a safetensors file.
        layers: By dotted name.
        steps: In order.
        output: Which value are the logits.
    """

    shape: tuple[int, int, int]
    parameters: tuple[str, ...]
    tied: dict[str, str] = Field(default_factory=dict)
    constants: str = ""
    layers: dict[str, Layer]
    steps: tuple[Step, ...]
    output: int = Field(ge=0)


class GraphNet(nn.Module):
    """A net that runs a graph.

    Its weights have the names that they had in the net that was written down, and its linear layers, convolutions and
    batch normalisations are modules of torch again. Of anything else there is what eval mode does: in train mode
    dropout stays off.

    Args:
        graph: The graph.
        state: Weights of the shapes and types that the net is to have; they are not copied.

    Raises:
        ValueError: The graph is not one that can be run, with the reason.
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
        self.unhot_graph = graph  # no layer of a net is called like these two
        self.unhot_spent = _last_uses(graph)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the net returned for inputs x (B, C, H, W), (B, K)."""
        values: list[Any] = [x]
        for step, spent in zip(self.unhot_graph.steps, self.unhot_spent, strict=True):
            args = [self._given(a, values, x.device) for a in step.args]
            if step.layer is None:
                kwargs = {k: self._given(a, values, x.device) for k, a in step.kwargs.items()}
                values.append(operator_of(step.call)(*args, **kwargs))
            else:
                values.append(self.get_submodule(step.layer)(*args))
            for i in spent:
                values[i] = None  # so that its memory is free again
        out: Tensor = values[self.unhot_graph.output]
        return out

    def _given(self, arg: Any, values: list[Any], device: torch.device) -> Any:
        """Return what an argument stands for."""
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


@cache
def operator_of(call: str) -> Callable[..., Any]:
    """Return the operator of that name.

    Raises:
        ValueError: A graph may not call it.
    """
    family, _, name = call.partition(".")
    if family == "operator" and name in ARITHMETIC:
        return getattr(operator, name)  # type: ignore[no-any-return]
    name, _, overload = name.partition(".")
    if family == "aten" and name.removesuffix("_") in OPERATORS:
        packet = getattr(torch.ops.aten, name, None)
        if packet is not None and overload in packet.overloads():
            found = getattr(packet, overload)
            written = [a.name for a in found._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
            if written in ([], [found._schema.arguments[0].name]):  # and not one that is given as out=
                return found  # type: ignore[no-any-return]
    raise ValueError(f"it calls {call}, which is not among the operators that a graph may call")


def rebuilt(graph: Graph, state: Mapping[str, Tensor], where: str) -> GraphNet:
    """Make the net of a graph; its weights are still to be loaded.

    Args:
        graph: The graph.
        state: The weights, for their shapes.
        where: The file, for the error.

    Raises:
        ModelError: The graph cannot be run with weights like these.
    """
    try:
        return GraphNet(graph, state)
    except Exception as error:  # what is in the file may be anything
        raise ModelError(f"{where} is not a graph that can be run: {str(error).partition(chr(10))[0]}.") from error


def _check(graph: Graph, weights: set[str]) -> None:
    """Refuse a graph that does not only use what it says."""
    for i, step in enumerate(graph.steps):
        if step.layer is None:
            operator_of(step.call)
        elif step.layer not in graph.layers:
            raise ValueError(f"step {i} calls {step.layer!r}, which is not among its layers")
        for kind, what in references([*step.args, *step.kwargs.values()]):
            known = {
                "value": isinstance(what, int) and 0 <= what <= i,
                "weight": what in weights,
                "device": what == "input",
                "float": what in ("inf", "-inf", "nan"),
            }
            named = kind in TYPES and isinstance(getattr(torch, str(what), None), TYPES[kind])
            if not (known.get(kind) or named):
                raise ValueError(f"step {i} has no {kind} {what!r}")
    if graph.output > len(graph.steps):
        raise ValueError(f"it has no value {graph.output} to return")


def references(arg: Any) -> Iterable[tuple[str, Any]]:
    """Yield what is not plain in an argument, as (kind, name)."""
    if isinstance(arg, dict):
        if len(arg) != 1:
            raise ValueError(f"{arg} is not an argument")
        yield next(iter(arg.items()))
    elif isinstance(arg, list):
        for a in arg:
            yield from references(a)


def _last_uses(graph: Graph) -> list[list[int]]:
    """Return for each step the values that nothing after it needs."""
    last = {
        int(what): i
        for i, step in enumerate(graph.steps)
        for kind, what in references([*step.args, *step.kwargs.values()])
        if kind == "value"
    }
    return [[v for v, at in last.items() if at == i and v != graph.output] for i in range(len(graph.steps))]


def _made(layer: Layer, name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Make a layer that fits its weights, not yet with their values."""
    kind, takes = LAYERS[layer.kind]
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in layer.options.items()}
    if unknown := set(options) - set(takes):
        raise ValueError(f"{layer.kind} {name!r} has no options {sorted(unknown)}")
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
