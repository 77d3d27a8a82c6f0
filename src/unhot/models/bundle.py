"""Bundles: a folder that loads on a machine with nothing else.

It holds ``model.safetensors`` and ``bundle.json``; and ``graph.json``, where neither unhot nor torchvision can build
the net by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import skip_init

from unhot.errors import InputError, ModelError, ModelWarning, raise_all
from unhot.files import sha256, staged_folder
from unhot.models.arch import build, is_ours
from unhot.models.classifier import Classifier, linear, replace_layer
from unhot.models.cut import CUT_OUTPUTS, Bottleneck, mask_outputs
from unhot.models.formats.checkpoint import read_weights
from unhot.models.graph import GraphNet, example_of, rebuilt
from unhot.models.head import inspect_outputs, is_plain
from unhot.models.weights import BEFORE, check_weights
from unhot.reading import read_text
from unhot.records.base import Record
from unhot.records.graph import Graph
from unhot.records.model import BundleInfo
from unhot.runtime import own_generators, usual_settings
from unhot.version import __version__

R = TypeVar("R", bound=Record)
WEIGHTS, INFO, GRAPH, RECORD = "model.safetensors", "bundle.json", "graph.json", "record.json"


class GraphWarning(ModelWarning):
    """A bundle was written that needs the package of its net."""


@usual_settings()
def save(model: Classifier, out: str | Path, record: Record | None = None) -> None:
    """Write a classifier to a folder that does not exist yet or is empty.

    A net of unhot or torchvision is kept by name, any other one as a graph of the operators that it calls in eval mode
    (see :mod:`unhot.models.graph`), so that the bundle does not need the code that defined it.

    Args:
        model: The classifier.
        out: The folder.
        record: How the model came to be, written as ``record.json``.

    Raises:
        ModelError: The net can neither be written down as a graph nor be built again by ``arch``.
        OutputError: The folder is taken, or the disk is full.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"Expected an unhot.Classifier, got {type(model).__name__}. Wrap a net with a few of its inputs: "
            "unhot.Classifier.wrap(net, example=x)."
        )
    with staged_folder(Path(out)) as stage:
        write_bundle(model, stage, record)


def write_bundle(model: Classifier, folder: Path, record: Record | None = None) -> None:
    """Write the files of a bundle into a folder that exists."""
    graph = _graph(model)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.module.state_dict().items()}
    (folder / WEIGHTS).touch()
    mode = (folder / WEIGHTS).stat().st_mode  # as the umask wants it; safetensors lets nobody else read the file
    try:
        save_file(state, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(mode)
    except SafetensorError as error:  # it wraps what the system said
        if (said := re.search(r"os error (\d+)", str(error))) is not None:
            raise OSError(int(said[1]), os.strerror(int(said[1])), str(folder / WEIGHTS)) from error
        raise
    if graph is not None:
        graph.write(folder / GRAPH)
    info = BundleInfo(
        arch=model.arch or "",
        arch_options=model.arch_options,
        outputs=model.outputs,
        classes=model.classes,
        forgotten=model.forgotten,
        input=model.input,
        head=model.head,
        weights_sha256=sha256(folder / WEIGHTS),
        graph_sha256=None if graph is None else sha256(folder / GRAPH),
        unhot_version=__version__,
    )
    info.write(folder / INFO)
    if record is not None:
        record.write(folder / RECORD)


def _graph(model: Classifier) -> Graph | None:
    """Write down the net of a classifier, where its name is not enough to build it anywhere."""
    if is_ours(model.arch, model.arch_options):
        return None
    from unhot.models.trace import graph_of  # torch takes seconds to import what it traces with

    try:
        return graph_of(model)
    except ModelError as error:
        if model.arch is None:
            raise ModelError(
                f"This net cannot be kept in a bundle: {error}. Save its state_dict yourself, or name the code that "
                "builds it: dataclasses.replace(classifier, arch='package.module:factory')."
            ) from error
        package = model.arch.partition(":")[0].partition(".")[0]
        warnings.warn(
            f"The bundle holds no graph of its net, so that loading it needs {package!r} and --arch {model.arch}: "
            f"{error}.",
            GraphWarning,
            stacklevel=4,
        )
        return None


@usual_settings()
def load(path: str | Path, *, trust_arch: str | None = None) -> Classifier:
    """Load a bundle.

    No code that a bundle names is imported: a net that neither unhot nor torchvision can build by name is made of its
    graph. Its weights, layers and outputs are the same; it is not of the class that it was, and in train mode it does
    not drop out.

    Args:
        path: The folder.
        trust_arch: Code that may be imported and run, as for ``--arch``. If it is the bundle's own ``arch``, it builds
            the net, which is then of its own class; a bundle without a graph cannot be loaded otherwise.

    Raises:
        ModelError: It is missing, damaged, or its weights do not fit; or it needs ``trust_arch``.
    """
    folder = Path(path)
    if not folder.exists():
        raise ModelError(f"There is no model at {folder}. Check the path.")
    if not (folder / INFO).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} is not a bundle: it needs {INFO} and {WEIGHTS}. For a weights file give --arch.")
    info = BundleInfo.read(folder / INFO)
    state = read_weights(folder / WEIGHTS, sha256=info.weights_sha256)
    net = _net(folder, info, state, trust_arch)
    load_state(net, state, info.head, str(folder))
    rows = linear(net, info.head).out_features
    if rows != len(info.classes):
        raise ModelError(f"{folder}: the head has {rows} outputs, and {INFO} names {len(info.classes)} classes.")
    if isinstance(net, GraphNet):
        raise_all(ModelError, f"{folder / GRAPH}", inspect_outputs(net, example_of(net), info.head)[1])
    return Classifier(
        module=net.eval(),
        classes=info.classes,
        head=info.head,
        input=info.input,
        arch=info.arch or None,
        arch_options=dict(info.arch_options),
        outputs=info.outputs,
        forgotten=info.forgotten,
        example_shape=net.unhot_graph.shape if isinstance(net, GraphNet) and info.input is None else None,
    )


def _net(folder: Path, info: BundleInfo, state: dict[str, Tensor], trust_arch: str | None) -> nn.Module:
    """Make the net of a bundle, its weights still to be loaded."""
    arch, file = info.arch, folder / GRAPH
    registered = arch and ":" not in arch and info.graph_sha256 is None  # by whoever installed it
    if is_ours(arch, info.arch_options) or registered or (arch and arch == trust_arch):
        if is_ours(arch, info.arch_options) and (info.arch_options or not arch.startswith("torchvision:")):
            _check_shapes(folder, info, state)
        with own_generators():  # what a new net draws is overwritten, and not the caller's
            return build(arch, info.outputs, info.input, info.arch_options)
    if info.graph_sha256 is None:
        raise ModelError(
            f"{folder} holds no graph of its net, only the name of code that builds it, {arch!r}. If you trust that "
            f"code, name it: --arch {arch}, or unhot.load(..., trust_arch={arch!r})."
        )
    text = read_text(file) if file.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != info.graph_sha256:
        raise ModelError(f"{file} is not the file that {INFO} describes. Restore the original bundle.")
    graph = Graph.parse(text, str(file))
    if info.input is not None and info.input.shape != graph.shape:
        raise ModelError(f"{file} takes inputs of shape {graph.shape}, and {INFO} says {info.input.shape}.")
    return rebuilt(graph, state, str(file))


def _check_shapes(folder: Path, info: BundleInfo, state: dict[str, Tensor]) -> None:
    """Refuse a net of ours whose layers before the head are not as large as their weights, before it takes memory."""
    with own_generators(), torch.device("meta"):
        own = build(info.arch, info.outputs, info.input, info.arch_options).state_dict()
    head = info.head.rpartition(".")[0] if info.head.endswith(".1") else info.head  # a bottleneck is made of one layer
    problems = [
        f"{k} has shape {tuple(state[k].shape)}, the architecture {tuple(v.shape)}."
        for k, v in own.items()
        if k in state and state[k].shape != v.shape and not k.startswith(head)
    ]
    missing = [k for k in own if k not in state and not k.startswith(head)]
    problems += [f"no weights for {k}." for k in missing]
    raise_all(ModelError, f"{folder} does not fit the architecture", problems)


def read_record(path: str | Path, kind: type[R]) -> R | None:
    """Read how a bundle came to be; None if it does not say, or came to be in another way.

    Args:
        path: The bundle's folder.
        kind: Which kind of record is looked for.
    """
    file = Path(path) / RECORD
    try:
        return kind.read(file) if file.is_file() else None
    except InputError:
        return None


def _narrow(net: nn.Module, state: dict[str, Tensor], head: str) -> None:
    """Put a bottleneck in the place of a linear layer, in place, where the head is the second half of one."""
    place, _, child = head.rpartition(".")
    weights = [state[k] for k in (f"{place}.0.weight", f"{head}.weight") if k in state and state[k].ndim == 2]
    if child == "1" and len(weights) == 2 and _is_plain(net, place):
        read, said = (skip_init(nn.Linear, w.shape[1], w.shape[0], bias=w is weights[1]) for w in weights)
        replace_layer(net, place, Bottleneck(read, said))


def _is_plain(net: nn.Module, name: str) -> bool:
    layer = dict(net.named_modules()).get(name)
    return isinstance(layer, nn.Linear) and is_plain(layer)


def load_state(net: nn.Module, state: dict[str, Tensor], head: str, where: str) -> None:
    """Load weights into a net, first bringing its head to the number of rows (and the bias) that they have.

    A head that was cut by a bottleneck is two layers, and is made that where the net has one; one whose outputs were
    masked masks them again. Only a plain linear layer is given another number of rows.

    Raises:
        ModelError: Something is missing, left over, of another shape, or not finite; everything is listed.
    """
    _narrow(net, state, head)
    layer, weight = linear(net, head), state.get(f"{head}.weight")
    if f"{head}.{CUT_OUTPUTS}" in state:
        mask_outputs(layer)
    elif weight is not None and weight.ndim == 2 and weight.shape[1] == layer.in_features and is_plain(layer):
        has_bias = f"{head}.bias" in state
        if len(weight) != layer.out_features or has_bias != (layer.bias is not None):
            replace_layer(net, head, skip_init(nn.Linear, layer.in_features, len(weight), bias=has_bias))
    own = net.state_dict()
    problems = [f"no weights for {k}." for k in own if k not in state]
    problems += [f"{k} is not part of the architecture." for k in state if k not in own]
    problems += [
        f"{k} has shape {tuple(v.shape)}, the architecture {tuple(own[k].shape)}."
        for k, v in state.items()
        if k in own and own[k].shape != v.shape
    ]
    problems += [
        f"{k} holds {str(v.dtype).removeprefix('torch.')} numbers, the architecture floating ones. {BEFORE}"
        for k, v in state.items()
        if k in own and own[k].is_floating_point() and not v.is_floating_point()
    ]
    raise_all(ModelError, f"{where} does not fit the architecture", problems)
    kinds = {v.dtype for v in state.values() if v.is_floating_point()}
    if len(kinds) == 1 and kinds != {v.dtype for v in own.values() if v.is_floating_point()}:
        net.to(kinds.pop())
    net.load_state_dict(state)
    raise_all(ModelError, where, check_weights(net))
