"""Loading weights into an architecture: those of a bundle, or of a file whose net is named by ``--arch``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unhot.errors import ModelError, raise_all, shortened
from unhot.models.adapted import fitted
from unhot.models.arch import build, channels_of, find_builder, fits, options_of
from unhot.models.classifier import Classifier
from unhot.models.formats.asked import Asked
from unhot.models.formats.checkpoint import read_weights
from unhot.models.formats.preprocessing import own_input, reads_grey
from unhot.models.formats.state_dicts import of_net
from unhot.models.head import SINGLE, find_head, is_plain, linear, linear_like, replace_layer
from unhot.models.preflight import undisturbed
from unhot.models.weights import BEFORE, check_weights
from unhot.records.model import InputSpec, Origin
from unhot.runtime import own_generators

PROBED = 10  # outputs of the net that shows which weights there are


@dataclass(frozen=True, kw_only=True)
class WeightsFile(Asked):
    """How to use a file that holds weights and nothing else.

    Attributes:
        arch: The architecture.
        arch_options: Its keyword arguments.
        input: Its inputs, if they are not known from the model itself.
        data_names: The names of a data set of as many classes; names that are numbers are those of outputs, in any
            order.
        key: Under which key of the file the weights are, if it is not found.
        prefix: What precedes the names of the net's weights in the file, if it is not found.
    """

    arch: str
    input: InputSpec | None
    arch_options: dict[str, Any]
    data_names: tuple[str, ...] | None = None
    key: str | None = None
    prefix: str | None = None


def load_weights(path: Path, how: WeightsFile) -> Classifier:
    """Load a weights file (.safetensors, or a state dict of torch) into an architecture.

    Raises:
        ModelError: It is missing or damaged, or does not fit the architecture.
    """
    state = read_weights(path, how.trust_pickle, key=how.key)
    find_builder(how.arch)  # an unknown name is reported first
    known = own_input(how.arch, how.arch_options, path, state) or how.input
    channels = 1 if reads_grey(state) else 3
    spec = how.preprocessing.applied(None if known is None else channels_of(how.arch, known), channels)
    return fit_weights(state, replace(how, input=spec), path)


def fit_weights(state: dict[str, Tensor], how: WeightsFile, path: Path) -> Classifier:
    """Load weights into an architecture whose inputs are ``how.input``; ``path`` is where they are from.

    Raises:
        ModelError: They do not fit the architecture.
    """
    with own_generators():
        probe = build(how.arch, PROBED, how.input, how.arch_options)
    state, stripped = of_net(state, probe.state_dict().keys(), path, how.prefix)
    head, outputs = _outputs(probe, state, how, path)
    if outputs < 2:
        raise ModelError(f"{path} has {SINGLE}")
    with own_generators():
        net = probe if outputs == PROBED else build(how.arch, outputs, how.input, how.arch_options)
    try:
        load_state(net, state, head, str(path))
    except ModelError as error:
        raise ModelError(("\n" if "\n" in str(error) else " ").join([str(error), *_advice(how)])) from error
    net, head, origin = _with_one_head(net.eval(), head, how)
    origin = origin.model_copy(update={"stripped": stripped})
    names = numbers = tuple(map(str, range(outputs)))
    if how.data_names and len(how.data_names) == outputs and set(how.data_names) != set(numbers):
        names = how.data_names
    labels = how.labels(names, str(path))
    return Classifier(net, labels, head, how.input, how.arch, how.arch_options, outputs, origin=origin)


def _outputs(probe: nn.Module, state: dict[str, Tensor], how: WeightsFile, path: Path) -> tuple[str, int]:
    """Return the name of the head, and the number of its rows in a file.

    Args:
        probe: The architecture with :data:`PROBED` outputs.
        state: The weights.
        how: The architecture.
        path: The file.
    """
    head, problems = find_head(probe, how.head, None)
    if how.head is not None:
        raise_all(ModelError, how.arch, problems)
    weight = state.get(f"{head}.weight")
    if weight is None or weight.ndim != 2 or linear(probe, head).out_features != PROBED:
        found = [k for k in _growing(probe, how) if k in state and state[k].ndim > 1]
        if found and len(rows := {len(state[k]) for k in found}) == 1:
            return found[0].rpartition(".")[0], rows.pop()
    raise_all(ModelError, how.arch, problems)
    if weight is None:
        other = f"torchvision:{how.arch}"
        advice = f"They fit --arch {other}." if fits(other, state) else "Check --arch, or name the head."
        raise ModelError(f"{path} has no {head}.weight, the head of {how.arch}. {advice}")
    if weight.ndim != 2:
        raise ModelError(f"{path}: {head}.weight is not a matrix. Check --arch, or name the head.")
    return head, len(weight)


def _growing(probe: nn.Module, how: WeightsFile) -> list[str]:
    """Return the weights of an architecture that have a row for each output, whatever layers they are of."""
    with own_generators():
        other = build(how.arch, PROBED + 1, how.input, how.arch_options).state_dict()
    return [
        k
        for k, v in probe.state_dict().items()
        if k in other and v.ndim and other[k].shape == (PROBED + 1, *v.shape[1:]) and len(v) == PROBED
    ]


def _with_one_head(net: nn.Module, head: str, how: WeightsFile) -> tuple[nn.Module, str, Origin]:
    """Return a net with one linear head, the name of that, and what was made of the net for it.

    Raises:
        ModelError: It is not clear which part of the net's output is the logits.
    """
    if how.input is None:
        linear(net, head)
        return net, head, Origin(kind="weights")
    x = torch.randn(2, *how.input.shape, generator=torch.Generator().manual_seed(0))
    found, origin = fitted(net, x, how.output, how.head)
    origin = (origin or Origin(kind="module")).model_copy(update={"kind": "weights"})
    if how.head is not None:
        return found, origin.prefix + how.head, origin
    with undisturbed(found):
        name, problems = find_head(found, None, x)
    name = origin.prefix + head if problems else name
    if not isinstance(found.get_submodule(name), nn.Linear):
        kind = type(found.get_submodule(name)).__name__
        raise ModelError(
            f"{how.arch} ends in the {kind} {head!r}, whose outputs are changed before they are its logits. unhot "
            "needs a net that ends in an nn.Linear, or in a convolution of kernel 1."
        )
    return found, name, origin


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
    convolution = isinstance(dict(net.named_modules()).get(head), nn.Conv2d)  # becomes a linear layer later
    layer, weight = None if convolution else linear(net, head), state.get(f"{head}.weight")
    if layer and weight is not None and weight.shape[1:] == (layer.in_features,) and is_plain(layer):
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
