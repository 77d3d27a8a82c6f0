"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, get_args, get_origin, get_type_hints

import typer

from unhot.errors import InputError, OptionError
from unhot.reading import parse_json
from unhot.records.choices import Interpolation

if TYPE_CHECKING:
    from unhot.data.concept import Concept
    from unhot.data.preprocessing import Preprocessing
    from unhot.data.source import Source
    from unhot.models.classifier import Classifier
    from unhot.runtime import Runtime


def _hush(context: typer.Context, quiet: bool) -> bool:
    from unhot.cli.output import quieted

    if quiet:
        context.with_resource(quieted())
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
Quiet = Annotated[
    bool, typer.Option("--quiet", callback=_hush, help="Print no notes and no progress, only results and errors.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="Device of torch, such as cpu or cuda:0; the best one by default.")
]
Set = Annotated[list[str], typer.Option("-o", help="Setting as key=value; may be repeated.")]


@dataclass(frozen=True)
class DataOptions:
    """Where a command finds data sets; a folder is read wherever it is."""

    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Folder of the named data sets. [UNHOT_DATA]")] = (
        None
    )
    download: Annotated[bool, typer.Option("--download", help="Download a named data set if it is missing.")] = False
    skip_broken: bool = False

    def source(self, src: str) -> Source:
        """Read a data set."""
        from unhot.data.source import load_source

        return load_source(src, self.data_dir, self.download, self.skip_broken)


@dataclass(frozen=True)
class How(DataOptions):
    """How a command that runs a model reads data, and on what it runs."""

    skip_broken: Annotated[
        bool,
        typer.Option("--skip-broken", help="Leave out images that cannot be read, and say which, instead of stopping."),
    ] = False
    device: Device = None
    quiet: Quiet = False
    json: Json = False

    def runtime(self, seed: int, alone: bool = False) -> Runtime:
        """Make the runtime; see :func:`make_runtime`."""
        return make_runtime(self.device, seed, alone)


@dataclass(frozen=True)
class PreprocessingOptions:
    """How pictures become inputs, as options say it."""

    image_size: Annotated[
        int | None,
        typer.Option("--image-size", "--crop", help="Side of the square inputs in pixels, cropped at the centre."),
    ] = None
    resize: Annotated[
        str | None, typer.Option("--resize", help="Size before cropping: the shorter side, or HEIGHTxWIDTH.")
    ] = None
    interpolation: Annotated[
        str | None, typer.Option("--interpolation", help=f"Filter for resizing: {', '.join(get_args(Interpolation))}.")
    ] = None
    mean: Annotated[
        str | None, typer.Option("--mean", help="Mean to subtract from pixels of 0..1: one number, or R,G,B.")
    ] = None
    std: Annotated[str | None, typer.Option("--std", help="Standard deviation to divide by: one number, or R,G,B.")] = (
        None
    )

    def parsed(self) -> Preprocessing:
        """Read the values.

        Raises:
            OptionError: One has another form.
        """
        from unhot.data.preprocessing import Preprocessing

        return Preprocessing.parse(self.image_size, self.resize, self.interpolation, self.mean, self.std)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as Typer reads it, which has no groups of options.

    Each parameter that is a dataclass becomes the options that its fields are annotated with; so does each field that
    is one. Fields without an option keep their defaults.
    """
    own = inspect.signature(command, eval_str=True)
    groups = {name: p.annotation for name, p in own.parameters.items() if _is_group(p.annotation)}

    @functools.wraps(command)
    def flat(**given: object) -> None:
        made = {name: _gathered(group, given) for name, group in groups.items()}
        command(**made, **{name: value for name, value in given.items() if name in own.parameters})

    parameters: list[inspect.Parameter] = []
    for name, p in own.parameters.items():
        parameters += _options(groups[name]) if name in groups else [p.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    flat.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return flat


def _is_group(annotation: object) -> TypeGuard[type]:
    return isinstance(annotation, type) and is_dataclass(annotation)


def _annotated(group: type) -> Iterator[tuple[Field[Any], Any]]:
    """Give the fields of a group that are options, or groups of these, with their annotations."""
    hints = get_type_hints(group, include_extras=True)
    for one in fields(group):
        if get_origin(hint := hints[one.name]) is Annotated or _is_group(hint):
            yield one, hint


def _options(group: type) -> Iterator[inspect.Parameter]:
    for one, hint in _annotated(group):
        if _is_group(hint):
            yield from _options(hint)
        else:
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _gathered(group: type, given: Mapping[str, object]) -> object:
    return group(
        **{one.name: _gathered(hint, given) if _is_group(hint) else given[one.name] for one, hint in _annotated(group)}
    )


def words(group: object) -> list[str]:
    """Return what is said in a group of options that differs from its defaults, as words of the command line."""
    found: list[str] = []
    for one, hint in _annotated(type(group)):
        value = getattr(group, one.name)
        if _is_group(hint):
            found += words(value)
        elif value not in (None, False, []):
            name = str(hint.__metadata__[0].default)  # of Option(NAME, help=...)
            given = value if isinstance(value, list) else [value]
            found += [name] if value is True else [word for one_of in given for word in (name, str(one_of))]
    return found


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


def concept_of(
    model: Classifier, classes: Sequence[str], label_map: Path | None, given: Sequence[str] = ()
) -> Concept | None:
    """Return what classes of a request are for a model, if there is a label map.

    Args:
        model: The model.
        classes: Groups or labels of the map, or classes of the model.
        label_map: The file of the map.
        given: The labels of which there are samples; all if there are none.
    """
    from unhot.data.concept import LabelMap

    if label_map is None:
        return None
    return LabelMap.read(label_map).concept(classes, [c.name for c in model.classes], given or None)


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
