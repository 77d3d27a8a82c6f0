"""The operators that a graph may call, and the check of their arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from pydantic import JsonValue

from unhot.errors import brief

# The overloads found by tracing the nets of torchvision and of every family of timm, every layer of torch.nn and the
# usual functions on tensors. Without a name it is `default`.
OVERLOADS = """
    __and__.Tensor __or__.Tensor _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa.vec _weight_norm abs abs_ acos acosh
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add.Tensor
    add_.Tensor addbmm addcdiv addcdiv_ addcmul addcmul_ addmm alias all all.dim amax amin any any.dim arange
    arange.start arange.start_step argmax argmin argsort asin asinh atan atan2 atanh avg_pool1d avg_pool2d avg_pool3d
    baddbmm batch_norm bilinear bitwise_and.Tensor bitwise_not bitwise_or.Tensor bitwise_xor.Tensor bmm
    broadcast_tensors broadcast_to bucketize.Tensor cat cdist ceil celu celu_ channel_shuffle chunk clamp clamp.Tensor
    clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clone col2im concat constant_pad_nd contiguous conv1d
    conv1d.padding conv2d conv2d.padding conv3d conv3d.padding conv_transpose1d conv_transpose2d.input
    conv_transpose3d.input copy_ copysign.Tensor cos cosh cosine_similarity cross cummax cummin cumprod cumsum detach
    detach_ diagonal diff div.Tensor div.Tensor_mode div_.Tensor dot dropout dropout_ einsum elu elu_ embedding
    eq.Scalar eq.Tensor erf erf_ erfc exp exp2 exp_ expand expand_as expm1 eye eye.m feature_dropout feature_dropout_
    fft_fft fft_fft2 fft_ifft fft_ifft2 fft_irfft fft_irfft2 fft_rfft fft_rfft2 fill_.Scalar fill_.Tensor
    flatten.using_ints flip floor floor_divide fmod.Scalar fmod.Tensor frac full full_like gather ge.Scalar ge.Tensor
    gelu gelu_ glu grid_sampler group_norm gt.Scalar gt.Tensor hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_
    hardtanh hardtanh_ im2col imag index.Tensor index_add index_add_ index_put index_put_ index_select inner
    instance_norm isfinite isinf isnan kron kthvalue layer_norm le.Scalar le.Tensor leaky_relu leaky_relu_ lerp.Scalar
    lerp.Tensor lift_fresh_copy linalg_norm linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid
    log_softmax.int logaddexp logical_and logical_not logical_or logical_xor logit logsumexp lt.Scalar lt.Tensor
    masked_fill.Scalar masked_fill.Tensor masked_fill_.Scalar matmul max max.dim max.other max_pool1d max_pool2d
    max_pool2d_with_indices max_pool3d maximum mean mean.dim median.dim meshgrid meshgrid.indexing min min.dim min.other
    minimum mish mish_ mm movedim.int mul.Tensor mul_.Tensor mv nan_to_num narrow ne.Scalar ne.Tensor neg neg_ new_full
    new_ones new_zeros norm.ScalarOpt_dim one_hot ones ones_like outer pad permute pixel_shuffle pixel_unshuffle polar
    pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor pow_.Scalar prelu prod prod.dim_int real reciprocal reflection_pad1d
    reflection_pad2d relu relu6 relu6_ relu_ remainder.Scalar remainder.Tensor repeat repeat_interleave.self_int
    replication_pad1d replication_pad2d reshape reshape_as rms_norm roll rot90 round round.decimals rsqrt rsqrt_
    rsub.Scalar rsub.Tensor scalar_tensor scaled_dot_product_attention scatter.src scatter.value scatter_.src
    scatter_.value scatter_add scatter_add_ searchsorted.Tensor select.int select_scatter selu selu_ sigmoid sigmoid_
    sign silu silu_ sin sinh slice.Tensor slice_scatter softmax.int softplus softshrink sort split.Tensor
    split_with_sizes sqrt sqrt_ square square_ squeeze squeeze.dim squeeze.dims stack std std.correction std.dim
    std_mean.dim sub.Tensor sub_.Tensor sum sum.dim_IntList swapaxes sym_size.int t take_along_dim tan tanh tanh_
    tensor_split.sections tensordot threshold threshold_ tile to.device to.dtype to.dtype_layout to.other topk
    transpose.int transpose_ tril triu trunc type_as unbind.int unflatten.int unfold unsqueeze unsqueeze_
    upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest1d.vec upsample_nearest2d.vec
    var var.correction var.dim var_mean.correction var_mean.dim view view_as view_as_complex view_as_real where.Scalar
    where.ScalarOther where.ScalarSelf where.self xlogy.Scalar_Other xlogy.Tensor zero_ zeros
    zeros_like
"""
OPERATORS = frozenset(f"aten.{o}" if "." in o else f"aten.{o}.default" for o in OVERLOADS.split())
ARITHMETIC = frozenset({"add", "sub", "mul", "floordiv", "mod", "neg", "getitem"})  # of sizes; of several results
DTYPES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128"
FORMATS = "contiguous_format preserve_format channels_last channels_last_3d"
# constants of torch that an argument may name: type, name of the type in schemas, and names
TYPES: dict[str, tuple[type, str, frozenset[str]]] = {
    "dtype": (torch.dtype, "ScalarTypeType", frozenset(DTYPES.split())),
    "layout": (torch.layout, "LayoutType", frozenset({"strided"})),
    "memory_format": (torch.memory_format, "MemoryFormatType", frozenset(FORMATS.split())),
}
FLOATS = frozenset({"inf", "-inf", "nan"})  # numbers that JSON lacks
REFERENCES: dict[str, tuple[str, ...]] = {  # types of arguments that accept each kind of reference
    "weight": ("TensorType",),
    "device": ("DeviceObjType",),
    "float": ("FloatType", "NumberType"),
} | {name: (declared,) for name, (_, declared, _) in TYPES.items()}

Kind = Literal["tensor", "tensors", "number"]  # kinds of values: a tensor, several of them, or a size

LARGEST = 2**31 - 1  # largest size
TO_THE_END = 2**63 - 1  # the end of a slice that leaves nothing out
MOST = 65_536  # largest other integer, of either sign
LONGEST = 4_096  # longest list or text
LEAST = {  # smallest value of integers of these names, which must be literals; torch divides by some unchecked
    "kernel_size": 1, "stride": 1, "dilation": 1, "groups": 1, "num_groups": 1, "upscale_factor": 1,
    "downscale_factor": 1, "chunks": 1, "sections": 1, "split_size": 1, "num_classes": 1, "step": 1, "steps": 1,
    "padding": 0, "output_padding": 0, "output_size": 0, "split_sizes": 0, "length": 0, "n": 0, "m": 0,
    "divisor_override": 1, "s": 1, "interpolation_mode": 0, "padding_mode": 0, "compute_mode": 0,
}  # fmt: skip
NEVER = "train", "dropout_p", "pin_memory", "sparse", "sparse_grad"  # must be false: else random or no dense results
WORDS = {
    "approximate": ("none", "tanh"),
    "rounding_mode": ("floor", "trunc"),
    "indexing": ("ij", "xy"),
    "mode": ("constant", "reflect", "replicate", "circular"),
    "norm": ("forward", "backward", "ortho"),
    "padding": ("same", "valid"),
    "side": ("left", "right"),
}
TAKES_NUMBERS = "add", "sub", "mul", "div", "floor_divide"  # accept a number as their second tensor


class Known(NamedTuple):
    """The values and weights that a step may refer to.

    Attributes:
        kinds: Kinds of the values so far.
        weights: Names of the parameters, buffers and constants.
    """

    kinds: Sequence[Kind]
    weights: Set[str]

    def has(self, kind: str, which: JsonValue) -> bool:
        """Return whether a reference exists."""
        if kind == "value":
            return type(which) is int and 0 <= which < len(self.kinds)
        named = {"weight": self.weights, "device": {"input"}, "float": FLOATS} | {k: t[2] for k, t in TYPES.items()}
        return isinstance(which, str) and which in named.get(kind, ())

    def kind_of(self, arg: JsonValue) -> str:
        """Return the kind of the value of an argument; "literal" for an integer, empty for all else."""
        if isinstance(arg, dict):
            [(kind, which)] = arg.items()
            return self.kinds[which] if kind == "value" else ""  # type: ignore[index]
        return "literal" if type(arg) is int and abs(arg) <= LARGEST else ""


class Argument(NamedTuple):
    """An argument as an operator declares it.

    Attributes:
        kind: Torch's name of its type, or of the type of its items.
        length: Number of items; 0 if it is no list, None or 1 if any number is allowed.
    """

    name: str
    kind: str
    optional: bool
    length: int | None
    items_optional: bool
    keyword: bool
    default: Any
    needed: bool


@cache
def operator_of(call: str) -> Callable[..., Any]:
    """Return the operator of that name.

    Raises:
        ValueError: A graph may not call it.
    """
    family, _, name = call.partition(".")
    if family == "operator" and name in ARITHMETIC:
        return getattr(operator, name) if name == "getitem" else _bounded(getattr(operator, name))
    if call in OPERATORS:
        name, _, overload = name.partition(".")
        found: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
        return found
    raise ValueError(f"it calls {call}, which is not among the operators that a graph may call")


def _bounded(compute: Callable[..., int]) -> Callable[..., int]:
    """Return arithmetic that refuses large results."""

    def computed(*numbers: int) -> int:
        result = compute(*numbers)
        if abs(result) > LARGEST:
            raise ValueError("a size becomes too large")
        return result

    return computed


@cache
def signature_of(call: str) -> tuple[dict[str, Argument], Kind]:
    """Return the declared arguments of an operator of ``aten``, by name, and the kind of its result."""
    schema = operator_of(call)._schema  # type: ignore[attr-defined]
    returned = [r.real_type.kind() for r in schema.returns]
    kind: Kind = "tensors" if returned != ["TensorType"] else "tensor"
    return {a.name: _declared(a) for a in schema.arguments}, "number" if returned == ["SymIntType"] else kind


@cache
def writes(call: str) -> bool:
    """Return whether an operator changes its first argument in place; none changes another one."""
    return call.startswith("aten.") and bool(operator_of(call)._schema.is_mutable)  # type: ignore[attr-defined]


def _declared(a: Any) -> Argument:
    """Return an argument as torch declares it."""
    kind, optional, items_optional, count = a.real_type, False, False, 0
    if kind.kind() == "OptionalType":
        kind, optional = kind.getElementType(), True
    if kind.kind() == "ListType":
        kind, count = kind.getElementType(), a.N
        if kind.kind() == "OptionalType":
            kind, items_optional = kind.getElementType(), True
    needed = not a.has_default_value()
    return Argument(a.name, kind.kind(), optional, count, items_optional, a.kwarg_only, a.default_value, needed)


def check_call(call: str, args: Sequence[JsonValue], kwargs: Mapping[str, JsonValue], known: Known) -> Kind:
    """Check the arguments of a step against the schema of its operator, before anything is run.

    Args:
        call: The operator.
        args: Positional arguments, as in :class:`unhot.records.graph.Step`.
        kwargs: Keyword arguments, as in it.
        known: The values and weights that they may refer to.

    Returns:
        The kind of the result.

    Raises:
        ValueError: An argument does not fit.
    """
    operator_of(call)
    if call.startswith("operator."):
        return _check_arithmetic(call, args, kwargs, known)
    declared, returned = signature_of(call)
    positional = [name for name, a in declared.items() if not a.keyword]
    given = dict(zip(positional, args, strict=False))
    if len(args) > len(positional) or given.keys() & kwargs.keys() or kwargs.keys() - declared.keys():
        raise ValueError(f"it gives {call} arguments that it does not take")
    given |= kwargs
    if missing := [name for name, a in declared.items() if a.needed and name not in given]:
        raise ValueError(f"it gives {call} no {missing[0]!r}")
    for name in LEAST.keys() & declared.keys() - given.keys():  # whose default lets torch infer them
        if type(declared[name].default) is int and declared[name].default < LEAST[name]:
            raise ValueError(f"it gives {call} no {name!r}")
    for name, value in given.items():
        check_argument(call, declared[name], value, known)
    for name in ("training", "use_input_stats"):
        if given.get(name) and not given.get("running_mean") is given.get("running_var") is None:
            raise ValueError(f"it lets {call} change running statistics")
    return returned


def check_argument(call: str, declared: Argument, value: JsonValue, known: Known) -> None:
    """Refuse a value that an argument cannot have.

    Raises:
        ValueError: The value does not fit.
    """
    if value is None and declared.optional:
        return
    if declared.length == 0:
        fits = _fits(call, declared, value, known)
    else:
        lengths = range(LONGEST) if declared.length in (None, 1) else (1, declared.length)
        fits = isinstance(value, list) and (len(value) in lengths or value == declared.default)
        fits = fits and all(
            _fits(call, declared, v, known) or (v is None and declared.items_optional)
            for v in value  # type: ignore[union-attr]
        )
    if not fits:
        raise ValueError(f"it gives {call} {brief(value)} as {declared.name!r}")


def _fits(call: str, declared: Argument, value: JsonValue, known: Known) -> bool:
    """Return whether a value has the declared type of an argument, or of its items."""
    name, kind = declared.name, declared.kind
    if isinstance(value, dict):
        return _fits_reference(call, declared, value, known)
    if kind == "StringType":
        return isinstance(value, str) and (
            value in WORDS.get(name, ()) or (name == "equation" and len(value) < LONGEST)
        )
    if isinstance(value, str) or (name in NEVER and value):
        return False
    if kind == "BoolType":
        return isinstance(value, bool)
    if kind == "NumberType" or _takes_number(call, declared):
        return isinstance(value, float) or (isinstance(value, int) and -TO_THE_END <= value <= TO_THE_END)
    if kind == "FloatType":
        return isinstance(value, float) or (type(value) is int and abs(value) <= LARGEST)
    if type(value) is not int or kind not in ("IntType", "SymIntType"):
        return False
    if kind == "IntType" or name in LEAST:
        return LEAST.get(name, -MOST) <= value <= MOST
    return abs(value) <= LARGEST or (name == "end" and value == TO_THE_END)


def _takes_number(call: str, declared: Argument) -> bool:
    """Return whether an argument that is declared as a tensor may be a number, which torch converts."""
    return declared.name == "other" and call.split(".")[1].rstrip("_") in TAKES_NUMBERS


def _fits_reference(call: str, declared: Argument, value: dict[str, JsonValue], known: Known) -> bool:
    """Return whether an existing reference has the declared type of an argument."""
    [what] = value
    kind = declared.kind
    if what == "value":
        found = known.kind_of(value)
        if found == "number":
            return declared.name not in LEAST and (
                kind in ("SymIntType", "NumberType") or _takes_number(call, declared)
            )
        return found == "tensor" and kind == "TensorType"
    return kind in REFERENCES[what]


def _check_arithmetic(call: str, args: Sequence[JsonValue], kwargs: Mapping[str, JsonValue], known: Known) -> Kind:
    """Refuse arithmetic on anything but sizes, and indexing of anything but several results."""
    kinds = [known.kind_of(a) for a in args]
    if call == "operator.getitem":
        if not kwargs and kinds == ["tensors", "literal"] and 0 <= args[1] <= MOST:  # type: ignore[operator]
            return "tensor"
    elif not kwargs and len(kinds) == (1 if call == "operator.neg" else 2) and set(kinds) <= {"number", "literal"}:
        return "number"
    raise ValueError(f"it gives {call} arguments that it does not take")
