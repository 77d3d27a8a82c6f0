"""Weights files that say nothing of themselves: the net is named by ``--arch``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unhot.data.preprocessing import Preprocessing
from unhot.errors import ModelError, raise_all
from unhot.models.arch import build, channels_of, find_builder
from unhot.models.bundle import load_state
from unhot.models.classifier import Classifier
from unhot.models.formats.checkpoint import read_weights
from unhot.models.formats.preprocessing import own_input, reads_grey
from unhot.models.head import find_head
from unhot.records.model import ClassLabel, InputSpec
from unhot.runtime import own_generators


@dataclass(frozen=True)
class WeightsFile:
    """How to use a file of weights that says nothing about itself.

    Attributes:
        arch: The architecture.
        arch_options: Its keyword arguments.
        input: Its inputs, if the model itself does not say.
        preprocessing: What the user says of its inputs, which counts most.
        class_names: One for each output, or the names of a data set of as many classes; numbers are those of outputs,
            in whatever order. None for the indices.
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
    find_builder(how.arch)  # an unknown name is said before it is asked how it takes its images
    known = own_input(how.arch, how.arch_options, path, state) or how.input
    channels = 1 if reads_grey(state) else 3
    spec = how.preprocessing.applied(None if known is None else channels_of(how.arch, known), channels)
    how = replace(how, input=spec)
    with own_generators():
        probe = build(how.arch, 10, how.input, how.arch_options)
    head, problems = find_head(probe, how.head, None)
    raise_all(ModelError, how.arch, problems)
    if f"{head}.weight" not in state:
        raise ModelError(f"{path} has no {head}.weight, the head of {how.arch}. Check --arch, or name the head.")
    if state[f"{head}.weight"].ndim != 2:
        raise ModelError(f"{path}: {head}.weight is not a matrix. Check --arch, or name the head.")
    outputs = len(state[f"{head}.weight"])
    with own_generators():
        net = probe if outputs == 10 else build(how.arch, outputs, how.input, how.arch_options)
    load_state(net, state, head, str(path))
    names = numbers = tuple(map(str, range(outputs)))
    if how.class_names and len(how.class_names) == outputs and set(how.class_names) != set(numbers):
        names = how.class_names
    labels = tuple(ClassLabel(index=i, name=name) for i, name in enumerate(names))
    return Classifier(net.eval(), labels, head, how.input, how.arch, how.arch_options, outputs)
