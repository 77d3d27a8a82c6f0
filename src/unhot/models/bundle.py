"""Bundles: folders that hold all that is needed to load a model.

They hold ``model.safetensors`` and ``bundle.json``, and ``graph.json`` if neither unhot nor torchvision can build the
net by name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from unhot.errors import InputError, ModelError, ModelWarning, invalid_values, raise_all, warn
from unhot.files import sha256, staged_folder
from unhot.models.arch import is_ours
from unhot.models.classifier import Classifier
from unhot.models.formats.checkpoint import read_weights
from unhot.models.formats.folder import is_folder_of_others, load_folder
from unhot.models.formats.older_bundles import inferred_edits, of_users
from unhot.models.formats.origin import net_of
from unhot.models.formats.weights import load_state
from unhot.models.graph import GraphNet, example_of, rebuilt
from unhot.models.head import inspect_outputs, linear
from unhot.models.head_edits.edit import HeadEdit
from unhot.models.head_edits.listed import ADAPTER
from unhot.models.trace import graph_of
from unhot.models.weights import write_tensors
from unhot.reading import read_text
from unhot.records.base import Record
from unhot.records.graph import Graph
from unhot.records.ledger import LEDGER, Ledger
from unhot.records.model import BundleInfo
from unhot.runtime import own_generators, usual_settings
from unhot.version import __version__

R = TypeVar("R", bound=Record)
Edited = tuple[nn.Module, tuple[HeadEdit, ...]]  # a net with the layers of some edits of its head
ADAPTER_OF_PEFT = "adapter_config.json"
WEIGHTS, INFO, GRAPH, RECORD = "model.safetensors", "bundle.json", "graph.json", "record.json"


class GraphWarning(ModelWarning):
    """A bundle was written whose net needs its own package to load."""


@usual_settings()
def save(model: Classifier, out: str | Path, record: Record | None = None, *, requests: Ledger | None = None) -> None:
    """Write a classifier to a folder that does not exist yet or is empty.

    A net of unhot or torchvision is saved by name, any other as a graph of the operators that it calls in eval mode
    (:mod:`unhot.models.graph`), so that loading does not need the code that defined it.

    Args:
        model: The classifier.
        out: The folder.
        record: The record of the run that made the model, written as ``record.json``.
        requests: The ledger of earlier requests on the model, written as ``requests.jsonl`` if it has any.

    Raises:
        ModelError: The net can neither be traced as a graph nor be built again by ``arch``.
        OutputError: The folder is taken, or the disk is full.
    """
    check_is_classifier(model)
    with staged_folder(Path(out)) as stage:
        write_bundle(model, stage, record)
        if requests is not None and requests.lines:
            (stage / LEDGER).write_text(requests.to_text(), encoding="utf-8")


def check_is_classifier(model: object) -> None:
    """Refuse anything else, with the way to make a classifier of it.

    Raises:
        ModelError: It is none.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"Expected an unhot.Classifier, got {type(model).__name__}. Of the result of unhot.forget it is "
            "result.classifier. Wrap any other net with a few of its inputs: unhot.Classifier.wrap(net, example=x)."
        )


def write_bundle(model: Classifier, folder: Path, record: Record | None = None) -> None:
    """Write the files of a bundle into a folder that exists."""
    graph = _graph(model)
    write_tensors(model.module.state_dict(), folder / WEIGHTS)
    if graph is not None:
        graph.write(folder / GRAPH)
    info = BundleInfo(
        arch=model.arch or "",
        arch_options=model.arch_options,
        outputs=model.outputs,
        classes=model.classes,
        head_edits=tuple(edit.model_dump(mode="json") for edit in model.head_edits),
        input=model.input,
        head=model.head,
        weights_sha256=sha256(folder / WEIGHTS),
        graph_sha256=None if graph is None else sha256(folder / GRAPH),
        origin=model.origin,
        unhot_version=__version__,
    )
    info.write(folder / INFO)
    if record is not None:
        record.write(folder / RECORD)


def _graph(model: Classifier) -> Graph | None:
    """Trace the net of a classifier, unless its name is enough to build it anywhere."""
    if model.arch is not None and is_ours(model.arch):
        return None
    try:
        return graph_of(model)
    except ModelError as error:
        if model.arch is None:
            raise ModelError(
                f"This net cannot be kept in a bundle: {error}. Save its state_dict yourself, or name the code that "
                "builds it: dataclasses.replace(classifier, arch='package.module:factory')."
            ) from error
        package = model.arch.partition(":")[0].partition(".")[0]
        warn(
            f"The bundle holds no graph of its net, so that loading it needs {package!r} and --arch {model.arch}: "
            f"{error}.",
            GraphWarning,
        )
        return None


@usual_settings()
def load(path: str | Path, *, trust_arch: str | None = None) -> Classifier:
    """Load a bundle, or a folder of transformers or timm (:mod:`unhot.models.formats.folder`).

    No code that a bundle names is imported: a net that neither unhot nor torchvision can build by name is made from its
    graph. It has the same weights, layers and outputs, but not its original Python class, and no dropout in train mode.

    Args:
        path: The folder.
        trust_arch: Code that may be imported and run, as for ``--arch``. If it is the bundle's own ``arch``, it builds
            the net, which then has its original class; a bundle without a graph needs this.

    Raises:
        ModelError: It is missing, damaged, or its weights do not fit; or it needs ``trust_arch``.
    """
    folder = Path(path)
    if not folder.exists():
        raise ModelError(f"There is no model at {folder}. Check the path.")
    if is_folder_of_others(folder):
        return load_folder(folder)
    if (folder / ADAPTER_OF_PEFT).is_file():
        raise ModelError(
            f"{folder} holds an adapter of PEFT, not a whole net. Save what model.merge_and_unload() returns."
        )
    if not (folder / INFO).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} is not a bundle: it needs {INFO} and {WEIGHTS}. For a weights file give --arch.")
    written = BundleInfo.read(folder / INFO)
    info = of_users(written, str(folder / INFO))
    state = read_weights(folder / WEIGHTS, sha256=info.weights_sha256)
    trusted = bool(trust_arch) and trust_arch in (info.arch, written.arch)
    net, edits = _edited_net(folder, info, state, trusted)
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
        head_edits=edits,
        example_shape=net.unhot_graph.shape if isinstance(net, GraphNet) and info.input is None else None,
        origin=info.origin,
    )


def _edited_net(folder: Path, info: BundleInfo, state: dict[str, Tensor], trusted: bool) -> Edited:
    """Make the net of a bundle with the edits of its head; its weights are still to be loaded."""
    ours = is_ours(info.arch)
    registered = info.arch and ":" not in info.arch and info.graph_sha256 is None  # by an installed package
    if not (ours or registered or trusted):
        net = _of_graph(folder, info, state)  # which has the layers of all edits
        return net, _edits(folder, info, state, net)
    if ours and (info.arch_options or not info.arch.startswith("torchvision:")):
        with torch.device("meta"):
            _check_shapes(folder, info, state, _built(folder, info, state)[0])
    return _built(folder, info, state)


def _built(folder: Path, info: BundleInfo, state: dict[str, Tensor]) -> Edited:
    """Build the architecture of a bundle, and give it the layers of all edits."""
    with own_generators():  # the initial weights are overwritten, and the caller's generators must not move
        net = net_of(info)
    edits = _edits(folder, info, state, net)
    for edit in edits:
        net = edit.structure(net)
    return net, edits


def _edits(folder: Path, info: BundleInfo, state: dict[str, Tensor], net: nn.Module) -> tuple[HeadEdit, ...]:
    if info.schema_version == 1:
        return inferred_edits(info, state, net)
    try:
        return ADAPTER.validate_python(info.head_edits)
    except ValidationError as error:
        wrong = invalid_values(error)[0]
        raise InputError(f"{folder / INFO} is not a valid BundleInfo: head_edits {wrong}.") from error


def _of_graph(folder: Path, info: BundleInfo, state: dict[str, Tensor]) -> GraphNet:
    """Make the net of a bundle from its graph."""
    if info.graph_sha256 is None:
        raise ModelError(
            f"{folder} holds no graph of its net, only the name of code that builds it, {info.arch!r}. If you trust "
            f"that code, name it: --arch {info.arch}, or unhot.load(..., trust_arch={info.arch!r})."
        )
    file = folder / GRAPH
    text = read_text(file) if file.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != info.graph_sha256:
        raise ModelError(f"{file} is not the file that {INFO} describes. Restore the original bundle.")
    graph = Graph.parse(text, str(file))
    if info.input is not None and info.input.shape != graph.shape:
        raise ModelError(f"{file} takes inputs of shape {graph.shape}, and {INFO} says {info.input.shape}.")
    return rebuilt(graph, state, str(file))


def _check_shapes(folder: Path, info: BundleInfo, state: dict[str, Tensor], net: nn.Module) -> None:
    """Refuse a net of ours whose layers before the head are not as large as their weights, before it takes memory."""
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(f"{info.head}.")}
    problems = [
        f"{k} has shape {tuple(state[k].shape)}, the architecture {tuple(v.shape)}."
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    problems += [f"no weights for {k}." for k in own if k not in state]
    raise_all(ModelError, f"{folder} does not fit the architecture", problems)


def read_record(path: str | Path, kind: type[R]) -> R | None:
    """Read the record of the run that made a bundle; None if there is none of that kind.

    Args:
        path: The bundle's folder.
        kind: The kind of record to read.
    """
    file = Path(path) / RECORD
    try:
        return kind.read(file) if file.is_file() else None
    except InputError:
        return None
