"""Loading weights into an architecture: those of a bundle, or of a file whose net is named by ``--arch``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unhot.data.preprocessing import Preprocessing
from unhot.errors import ModelError, raise_all, shortened
from unhot.models.arch import build, channels_of, find_builder, fits, options_of
from unhot.models.classifier import Classifier
from unhot.models.formats.checkpoint import read_weights
from unhot.models.formats.preprocessing import own_input, reads_grey
from unhot.models.head import find_head, is_plain, linear, linear_like, replace_layer
from unhot.models.weights import BEFORE, check_weights
from unhot.records.model import ClassLabel, InputSpec
from unhot.runtime import own_generators


@dataclass(frozen=True)
class WeightsFile:
    """How to use a file that holds weights and nothing else.

    Attributes:
        arch: The architecture.
        arch_options: Its keyword arguments.
        input: Its inputs, if they are not known from the model itself.
        preprocessing: Preprocessing that the user asks for, which overrides all other.
        class_names: One name for each output, or the names of a data set of as many classes; names that are numbers
            are those of outputs, in any order. None for the indices.
        head: Dotted name of the final linear layer, if it cannot be found.
        trust_pickle: Whether the file may run code while it is loaded.
    """

    arch: str
    input: InputSpec | None
    arch_options: dict[str, Any]
    class_names: tuple[str, ...] | None = None
    head: str | None = None
    trust_pickle: bool = False
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


def load_weights(path: Path, how: WeightsFile) -> Classifier:
    """Load a weights file (.safetensors, or a state dict of torch) into an architecture.

    Raises:
        ModelError: It is missing or damaged, or does not fit the architecture.
    """
    state = read_weights(path, how.trust_pickle)
    find_builder(how.arch)  # an unknown name is reported first
    known = own_input(how.arch, how.arch_options, path, state) or how.input
    channels = 1 if reads_grey(state) else 3
    spec = how.preprocessing.applied(None if known is None else channels_of(how.arch, known), channels)
    how = replace(how, input=spec)
    with own_generators():
        probe = build(how.arch, 10, how.input, how.arch_options)
    head, problems = find_head(probe, how.head, None)
    raise_all(ModelError, how.arch, problems)
    if f"{head}.weight" not in state:
        other = f"torchvision:{how.arch}"
        advice = f"They fit --arch {other}." if fits(other, state) else "Check --arch, or name the head."
        raise ModelError(f"{path} has no {head}.weight, the head of {how.arch}. {advice}")
    if state[f"{head}.weight"].ndim != 2:
        raise ModelError(f"{path}: {head}.weight is not a matrix. Check --arch, or name the head.")
    outputs = len(state[f"{head}.weight"])
    with own_generators():
        net = probe if outputs == 10 else build(how.arch, outputs, how.input, how.arch_options)
    try:
        load_state(net, state, head, str(path))
    except ModelError as error:
        raise ModelError(("\n" if "\n" in str(error) else " ").join([str(error), *_advice(how)])) from error
    names = numbers = tuple(map(str, range(outputs)))
    if how.class_names and len(how.class_names) == outputs and set(how.class_names) != set(numbers):
        names = how.class_names
    labels = tuple(ClassLabel(index=i, name=name) for i, name in enumerate(names))
    return Classifier(net.eval(), labels, head, how.input, how.arch, how.arch_options, outputs)


def _advice(how: WeightsFile) -> Iterator[str]:
    """Give what the user may have left out of a weights file that does not fit."""
    if how.input is None:
        yield "Give --image-size too: how pictures become inputs, and whether they are grey, is not known without it."
    if options := [o for o in options_of(how.arch) if o not in how.arch_options]:
        yield f"{how.arch} has the options {shortened(options)}. Give what it was built with: --arch-option NAME=VALUE."


def load_state(net: nn.Module, state: dict[str, Tensor], head: str, where: str) -> None:
    """Load weights into a net, after giving its head their number of rows (and their bias).

    Only a plain linear layer is changed like this.

    Raises:
        ModelError: Something is missing, left over, of another shape, or not finite; everything is listed.
    """
    layer, weight = linear(net, head), state.get(f"{head}.weight")
    if weight is not None and weight.ndim == 2 and weight.shape[1] == layer.in_features and is_plain(layer):
        has_bias = f"{head}.bias" in state
        if len(weight) != layer.out_features or has_bias != (layer.bias is not None):
            replace_layer(net, head, linear_like(layer, rows=len(weight), bias=has_bias))
    own = net.state_dict()
    problems = [f"no weights for {k}." for k in own if k not in state]
    problems += [f"{k} is not part of the architecture." for k in state if k not in own]
    problems += [
        f"{k} has shape {tuple(state[k].shape)}, the architecture {tuple(v.shape)}."
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    problems += [
        f"{k} holds {str(state[k].dtype).removeprefix('torch.')} numbers, the architecture floating ones. {BEFORE}"
        for k, v in own.items()
        if k in state and v.is_floating_point() and not state[k].is_floating_point()
    ]
    raise_all(ModelError, f"{where} does not fit the architecture", problems)
    kinds = {v.dtype for v in state.values() if v.is_floating_point()}
    if len(kinds) == 1 and kinds != {v.dtype for v in own.values() if v.is_floating_point()}:
        net.to(kinds.pop())
    net.load_state_dict(state)
    raise_all(ModelError, where, check_weights(net))
