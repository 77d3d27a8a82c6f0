"""``unhot guard collect`` and ``unhot guard drop``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from unhot.cli import options as opt
from unhot.cli.models import MODEL, ModelOptions
from unhot.errors import DataWarning
from unhot.files import check_new

CHECKED = 1_000  # images that show whether the model knows them

if TYPE_CHECKING:
    from unhot.data.images import LabelledImages
    from unhot.models.classifier import Classifier
    from unhot.runtime import Runtime
    from unhot.statistics import ClassStatistics


class _ReadsOldForm(TyperGroup):
    """Reads ``unhot guard SOURCE`` as before 0.2, too: with ``--data`` SOURCE is a model, without it a file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands:
            name = "collect" if any(a.partition("=")[0] == "--data" for a in args) else "drop"
            warnings.warn(
                f"unhot guard SOURCE is deprecated. Use: unhot guard {name} SOURCE.", FutureWarning, stacklevel=2
            )
            args = [name, *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="guard",
    cls=_ReadsOldForm,
    help="Collect statistics of training images, or drop classes.",
    no_args_is_help=True,
)

GuardFile = Annotated[Path, typer.Option("--out", help="Output file; it must not exist yet.")]


@app.command()
@opt.spread
def collect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    data: Annotated[str, typer.Option("--data", help="Training images of the model: a named data set, or a folder.")],
    out: GuardFile,
    max_images: Annotated[
        int | None,
        typer.Option("--max-images", min=1, help="Images to read at most, as many of each class. [10,000]"),
    ] = None,
    drop: Annotated[list[str], typer.Option("--drop", help="Class to leave out; may be repeated.")] = [],  # noqa: B006
    label_map: opt.LabelMapFile = None,
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Collect statistics of a model's training images, class by class.

    With --label-map the images are of the groups of the map, as for unhot train.
    """
    from unhot.statistics import MAX_IMAGES, ClassStatistics

    check_new(out)
    images = opt.by_label_map(how.source(data), label_map)
    found = asked.beside_source(images).load(model)
    runtime = how.runtime(seed, alone=True)
    _check_images(found, images.train_images, runtime)
    _write(ClassStatistics.collect(found, images.train_images, runtime, max_images or MAX_IMAGES), drop, out, how.json)


def _check_images(model: Classifier, images: LabelledImages, runtime: Runtime) -> None:
    """Warn where the model classifies the images little better than by guessing: they are hardly those of its training.

    A thousand of them are looked at.
    """
    import torch

    from unhot.training import accuracy, near_chance

    some = images.select(torch.randperm(len(images), generator=runtime.generator("guard check"))[:CHECKED])
    known = model.align(some, model.forgotten)
    right, chance = accuracy(model, known, runtime) if len(known) else 1.0, 1 / len(model.classes)
    if near_chance(right, chance):
        warnings.warn(
            f"The model classifies {right:.3f} of {len(known):,} images correctly; guessing would give {chance:.3f}. "
            "Check that it was trained on these images, their preprocessing (size, mean, standard deviation) and the "
            "order of the classes.",
            DataWarning,
            stacklevel=2,
        )


@app.command()
@opt.spread
def drop(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Output of unhot guard collect.")],
    classes: Annotated[list[str], typer.Option("--class", "--drop", help="Class to drop; may be repeated.")],
    out: GuardFile,
    json: opt.Json = False,
) -> None:
    """Drop classes from collected statistics, as if they had been collected without these."""
    from unhot.statistics import ClassStatistics

    check_new(out)
    _write(ClassStatistics.load(file), classes, out, json)


def _write(statistics: ClassStatistics, dropped: list[str], out: Path, json: bool) -> None:
    from unhot.cli.output import say
    from unhot.data.matching import find_class

    known = statistics.info.classes
    kept = statistics.excluding([known[find_class(c, known)] for c in dropped])
    kept.save(out)
    if json:
        say(kept.info.to_json())
        return
    size = out.stat().st_size / 1e6
    say(
        f"Wrote statistics of {len(kept.info.classes)} classes, {size:.1f} MB, to {out}. "
        "Protect this file like the training images."
    )
