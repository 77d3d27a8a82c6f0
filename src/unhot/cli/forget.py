"""``unhot forget``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unhot.cli.options import (
    Arch,
    ArchOption,
    Classes,
    DataDir,
    Device,
    Download,
    Head,
    Json,
    Out,
    Seed,
    Set,
    Size,
    TrustPickle,
    load_model,
    make_runtime,
    settings,
)
from unhot.errors import UnknownNameError
from unhot.methods import DEFAULT, get

if TYPE_CHECKING:
    from unhot.data.images import LabelledImages
    from unhot.data.samples import Samples
    from unhot.record import ClassLabel

SHOTS = 16


def forget(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A bundle, or a weights file with --arch.")],
    classes: Classes,
    samples: Annotated[str, typer.Option("--samples", help="A folder of images of the class, or a named data set.")],
    out: Out,
    shots: Annotated[
        int | None,
        typer.Option("--shots", help=f"Images of each class; all of a folder, {SHOTS} of a data set by default."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="See: unhot list methods.")] = DEFAULT,
    option: Set = [],  # noqa: B006
    retain: Annotated[
        str | None, typer.Option("--retain", help="Images of other classes, if the method uses them.")
    ] = None,
    seed: Seed = 0,
    arch: Arch = None,
    arch_option: ArchOption = [],  # noqa: B006
    image_size: Size = None,
    head: Head = None,
    trust_pickle: TrustPickle = False,
    data_dir: DataDir = None,
    download: Download = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Make a model forget one or more classes, from a few of their images.

    -o sets hyperparameters of the method; see: unhot show METHOD.
    """
    from unhot.cli.output import say
    from unhot.data import catalogue as datasets
    from unhot.data.source import load_source, photo_input
    from unhot.files import check_free
    from unhot.models.bundle import save

    check_free(out)
    chosen = get(method).of(settings(option))
    named = load_source(samples, data_dir, download) if samples in datasets else None
    spec = photo_input(image_size) if image_size is not None else (named.input if named else None)
    names = named.train.class_names if named and named.train else None
    classifier = load_model(model, arch, settings(arch_option), spec, names, head, trust_pickle)
    labels = [classifier.label(c) for c in classes]
    given = _samples(samples, named.train if named else None, labels, shots, seed)
    others = None if retain is None else load_source(retain, data_dir, download).train
    result = chosen(classifier, given, retain=others, seed=seed, runtime=make_runtime(device, seed))
    save(result.classifier, out, result.record)
    if json:
        say(result.record.to_json())
        return
    cost = result.record.cost
    say(
        f"Forgot {', '.join(c.name for c in labels)} with {method} from {len(given)} images in {cost.seconds:.2f} s "
        f"({cost.steps} steps; stopped: {result.record.stop_reason}). Wrote {out}."
    )


def _samples(src: str, train: LabelledImages | None, labels: list[ClassLabel], shots: int | None, seed: int) -> Samples:
    """Take the images of a folder, or draw some of a data set or a folder."""
    from unhot.data import catalogue as datasets
    from unhot.data.samples import draw, folder

    if train is not None:
        known = train.class_names or ()
        wanted = [c.name if c.name in known else c.index for c in labels]
        return draw(train, wanted, SHOTS if shots is None else shots, seed)
    path = Path(src)
    if not path.is_dir():
        raise UnknownNameError("samples", src, [*datasets, "a folder that exists"])
    # a subfolder may be named after a class or after its index
    found = folder(path, [c.name if not (path / str(c.index)).is_dir() else str(c.index) for c in labels])
    return found if shots is None else draw(found.images, found.classes, shots, seed)
