"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from unhot.errors import InputError, ModelError, OptionError, shortened
from unhot.reading import parse_json
from unhot.records.choices import Interpolation

if TYPE_CHECKING:
    from unhot.data.preprocessing import Preprocessing
    from unhot.data.source import Source
    from unhot.models.classifier import Classifier
    from unhot.records.model import InputSpec
    from unhot.runtime import Runtime

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder; it must not exist yet, or be empty.")]
Classes = Annotated[list[str], typer.Option("--class", help="Class to forget, by index or name; may be repeated.")]
LabelMapFile = Annotated[
    Path | None,
    typer.Option("--label-map", help='JSON file that groups labels: {"footwear": ["Sandal", "Sneaker"]}.'),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Random seed; results repeat on the same machine with the same number of threads.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the named data sets. [UNHOT_DATA]")]
Download = Annotated[bool, typer.Option("--download", help="Download a named data set if it is missing.")]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave out images that cannot be read, and say which, instead of stopping."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Device of torch, such as cpu or cuda:0; the best one by default.")
]
Set = Annotated[list[str], typer.Option("-o", help="Setting as key=value; may be repeated.")]
Arch = Annotated[
    str | None,
    typer.Option("--arch", help="Architecture of a weights file. Code that it names is run."),
]
ArchOption = Annotated[
    list[str], typer.Option("--arch-option", help="Keyword argument of the architecture, as key=value.")
]
Size = Annotated[
    int | None,
    typer.Option("--image-size", "--crop", help="Side of the square inputs in pixels, cropped at the centre."),
]
Resize = Annotated[
    str | None,
    typer.Option("--resize", help="Size before cropping: the shorter side, or HEIGHTxWIDTH."),
]
Filter = Annotated[
    str | None, typer.Option("--interpolation", help=f"Filter for resizing: {', '.join(get_args(Interpolation))}.")
]
Mean = Annotated[str | None, typer.Option("--mean", help="Mean of pixels in 0..1, subtracted: one number, or R,G,B.")]
Std = Annotated[str | None, typer.Option("--std", help="Standard deviation, divided by: one number, or R,G,B.")]
Head = Annotated[str | None, typer.Option("--head", help="Dotted name of the final linear layer, if it is not found.")]
TrustPickle = Annotated[bool, typer.Option("--trust-pickle", help="Unpickle weights files, which may run code.")]


def settings(pairs: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; a value is JSON where it is, else text.

    Raises:
        OptionError: One has no equals sign, or a key comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise OptionError(f"Expected key=value, got {pair!r}.")
        if key in found:
            raise OptionError(f"The setting {key!r} is given twice. Give it once.")
        if pair.encode(errors="ignore") != pair.encode(errors="surrogatepass"):
            raise OptionError(f"The setting {pair!r} is not text in UTF-8. Write it in UTF-8.")
        try:
            found[key] = parse_json(value, key)
        except InputError:
            found[key] = value
    return found


def load_model(
    path: Path,
    arch: str | None,
    arch_options: dict[str, Any],
    spec: InputSpec | None,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    head: str | None,
    trust_pickle: bool,
) -> Classifier:
    """Load MODEL of the command line: a bundle, or a weights file with its architecture.

    Args:
        path: The bundle's folder, or the file.
        arch: The architecture of a file; a bundle needs none, and is built by this code if it is the bundle's own.
        arch_options: Keyword arguments of the architecture.
        spec: How images become inputs, if the file does not say.
        preprocessing: What the user says of its inputs, which counts most.
        class_names: Used if the file has as many outputs.
        head: Dotted name of its final linear layer, if it cannot be found.
        trust_pickle: Whether a file may run code.

    Raises:
        ModelError: It is not there or does not fit.
    """
    from dataclasses import replace

    from unhot.cli.output import note
    from unhot.models.bundle import load
    from unhot.models.formats.weights import WeightsFile, load_weights
    from unhot.models.head import linear
    from unhot.report.inputs import input_text

    if path.is_dir() or not path.exists():
        model = load(path, trust_arch=arch)
        if head is not None:
            linear(model.module, head)
            model = replace(model, head=head)
        return model.taking(preprocessing.applied(model.input))
    if arch is None:
        raise ModelError(
            f"{path} is a file, not a bundle (a folder). If it holds weights, set --arch to their architecture."
        )
    how = WeightsFile(arch, spec, arch_options, class_names, head, trust_pickle, preprocessing)
    model = load_weights(path, how)
    if model.input is not None:
        note(f"For {path.name} pictures are {input_text(model.input)}.")
    names = tuple(c.name for c in model.classes)
    if names == class_names:
        note(f"{path.name} has no class names. Its outputs are assumed to be, in order: {shortened(names)}.")
    return model


def by_label_map(source: Source, label_map: Path | None) -> Source:
    """Return a data set whose labels are the groups of a label map, as for a model that was trained on these.

    Args:
        source: The data set.
        label_map: The file of the map; the data set stays as it is if None.
    """
    from dataclasses import replace

    from unhot.data.concept import LabelMap

    if label_map is None:
        return source
    groups = LabelMap.read(label_map)
    train, test = (None if s is None else groups.coarse(s) for s in (source.train, source.test))
    return replace(source, name=f"{source.name} by {label_map.name}", train=train, test=test)


def requested(
    source: Source, label_map: Path | None, classes: list[str], model: Classifier
) -> tuple[Source, list[str]]:
    """Return the data set and the classes of a request in the classes of a model.

    Args:
        source: The data set.
        label_map: The file of a label map, if the request names its groups.
        classes: The names of the request.
        model: Its classes are groups of the map, by which the data set is labelled then, or labels.
    """
    from unhot.data.concept import LabelMap

    known = {c.name for c in model.classes}
    groups = {} if label_map is None else LabelMap.read(label_map).groups
    if any(c in groups and c not in known for c in classes):
        return source, list(LabelMap(groups).labels(classes))
    return by_label_map(source, label_map), classes


def loader(
    source: Source,
    arch: str | None,
    arch_option: list[str],
    preprocessing: Preprocessing,
    head: str | None,
    trust_pickle: bool,
) -> Callable[[Path], Classifier]:
    """Return what loads MODEL of the command line; what a weights file leaves open is taken from the data."""
    images = source.test if source.train is None else source.train
    names = images.class_names if images else None
    options = settings(arch_option)
    return lambda path: load_model(path, arch, options, source.input, preprocessing, names, head, trust_pickle)


def make_runtime(device: str | None, seed: int, alone: bool = False) -> Runtime:
    """Make the runtime of a command: progress goes to a terminal, if there is one.

    Args:
        device: A device of torch; the best one if None.
        seed: The seed of the command.
        alone: Whether it shares nothing with other processes; those have ended (:func:`unhot.cli.app.options`).
    """
    from unhot.cli.output import progress
    from unhot.runtime import Runtime, no_progress, pick_device
    from unhot.runtime.distributed import ProcessGroup

    chosen = pick_device(device)
    processes = ProcessGroup() if alone else ProcessGroup.here(chosen)
    return Runtime(device=chosen, seed=seed, progress=no_progress if processes.rank else progress, processes=processes)
