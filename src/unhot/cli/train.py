"""``unhot train``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unhot.cli import Interrupted
from unhot.cli import options as opt
from unhot.records.choices import Precision

Excluded = Annotated[
    list[str], typer.Option("--exclude-class", help="Class to leave out of training; may be repeated.")
]


def train(
    dataset: Annotated[str, typer.Option("--dataset", help="Named data set, or folder with train/ and test/.")],
    arch: Annotated[str, typer.Option("--arch", help="Built-in name, torchvision:NAME, timm:NAME or module:factory.")],
    out: opt.Out,
    exclude: Excluded = [],  # noqa: B006
    label_map: opt.LabelMapFile = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate of the one-cycle schedule.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="Width of a built-in resnet.")] = None,
    *,
    preprocessing: opt.PreprocessingOptions,
    option: opt.Set = [],  # noqa: B006
    flip: Annotated[bool, typer.Option("--flip", help="Flip images of a folder at random, left to right.")] = False,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Precision of training; the faster one by default.")
    ] = None,
    seed: opt.Seed = 0,
    how: opt.How,
) -> None:
    """Train a classifier, or a retrained reference.

    With --exclude-class it is a reference for audits: a model that never saw the class. -o sets options of the
    architecture; with --label-map the classes are its groups. An interrupted run resumes when the same command is given
    again.
    """
    from unhot import training
    from unhot.cli.output import say
    from unhot.files import check_free
    from unhot.models.bundle import save

    check_free(out)
    options = opt.settings(option) | ({} if width is None else {"width": width})
    source = opt.by_label_map(how.source(dataset), label_map)
    if flip:
        source = replace(source, augment=replace(source.augment, flip=True))
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    runtime = how.runtime(seed)
    with _resumable(out) as checkpoint:
        model, record = training.train(
            source,
            arch,
            options=options,
            preprocessing=preprocessing.parsed(),
            exclude=exclude,
            settings={k: v for k, v in given.items() if v is not None},
            seed=seed,
            precision=precision,
            runtime=runtime,
            checkpoint=checkpoint,
        )
    if runtime.processes.rank:
        return
    save(model, out, record)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if how.json:
        say(record.to_json())
        return
    score = "no test images" if record.test_accuracy is None else f"test accuracy {record.test_accuracy:.4f}"
    if record.excluded and record.test_accuracy is not None:
        score += f" on the {len(model.classes) - len(record.excluded)} classes trained on"
    say(f"Trained {arch} on {record.train_images:,} images in {record.cost.seconds:.1f} s: {score}. Wrote {out}.")


@contextmanager
def _resumable(out: Path) -> Iterator[Path | None]:
    """Give the file from which an interrupted run goes on, and say how it does."""
    from unhot.cli.output import note

    checkpoint = _checkpoint(out)
    if checkpoint is None:
        note(f"No checkpoint can be written beside {out}, so that this run starts again if it is interrupted.")
    elif checkpoint.exists():
        note(f"Resuming from {checkpoint}.")
    try:
        yield checkpoint
    except Interrupted:
        if checkpoint is not None and checkpoint.exists():
            note(f"\nThe same command goes on from the last whole epoch, kept in {checkpoint}.")
        raise


def _checkpoint(out: Path) -> Path | None:
    """Return the file from which an interrupted run goes on; None where only the output folder can be written."""
    place = out.absolute()
    if place.is_dir() and not os.access(place.parent, os.W_OK):
        return None
    return place.with_name(f".{place.name}.checkpoint")
