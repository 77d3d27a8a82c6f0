"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from unhot.errors import InputError, OptionError
from unhot.reading import parse_json
from unhot.records.choices import Interpolation

if TYPE_CHECKING:
    from unhot.data.source import Source
    from unhot.models.classifier import Classifier
    from unhot.runtime import Runtime


def _hush(context: typer.Context, quiet: bool) -> bool:
    """Let what a command writes to stderr go nowhere until it ends; its errors are printed after that."""
    if quiet:
        nowhere = context.with_resource(Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        context.with_resource(redirect_stderr(nowhere))
    return quiet


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
Quiet = Annotated[
    bool, typer.Option("--quiet", callback=_hush, help="Print no notes and no progress, only results and errors.")
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
Mean = Annotated[str | None, typer.Option("--mean", help="Mean to subtract from pixels of 0..1: one number, or R,G,B.")]
Std = Annotated[str | None, typer.Option("--std", help="Standard deviation to divide by: one number, or R,G,B.")]
Head = Annotated[str | None, typer.Option("--head", help="Dotted name of the final linear layer, if it is not found.")]
Output = Annotated[
    str | None, typer.Option("--output", help="Key or position of the logits, if the net returns no tensor.")
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="File of class names, one for each output: lines, a JSON list, id2label.",
    ),
]
Key = Annotated[str | None, typer.Option("--key", help="Key of the weights in a file that holds other things too.")]
Prefix = Annotated[
    str | None, typer.Option("--prefix", help="Prefix of the names of weights in a file, if it is not found.")
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle", help="Load weights files that may run code: whole nets, TorchScript, .pt2 and other pickles."
    ),
]


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
