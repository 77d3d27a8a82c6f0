"""``unhot reference``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unhot.cli import options as opt
from unhot.cli.models import MODEL, ModelOptions


def reference(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help=MODEL)],
    classes: opt.Classes,
    data: Annotated[
        str, typer.Option("--data", help="Named data set, or folder of class folders; forgotten classes are left out.")
    ],
    out: opt.Out,
    share: Annotated[
        float, typer.Option("--share", help="Share of these images to train on, drawn at random.", min=0.0, max=1.0)
    ] = 1.0,
    seed: opt.Seed = 0,
    *,
    asked: ModelOptions,
    how: opt.How,
) -> None:
    """Make a stand-in for a retrained model.

    It is the original with a new last stage, trained on images of the retained classes. It is for audits where no model
    can be trained without the class: pass it to unhot audit as --retrained.
    """
    import torch

    from unhot.cli.output import say
    from unhot.files import check_free
    from unhot.models.bundle import save
    from unhot.reference import partial_reference

    check_free(out)
    source = how.source(data)
    model = asked.beside_source(source).load(original)
    runtime = how.runtime(seed)
    images = source.train_images
    if share < 1:
        order = torch.randperm(len(images), generator=runtime.generator("share"))
        images = images.select(order[: max(1, round(share * len(images)))].sort().values)
    found, record = partial_reference(model, images, classes, augment=source.augment, runtime=runtime)
    save(found, out, record)
    if how.json:
        say(record.to_json())
        return
    say(
        f"Trained a fresh last stage ({record.fresh[0]} to {record.fresh[-1]}) on {record.train_images:,} images in "
        f"{record.cost.seconds:.1f} s. Wrote {out}."
    )
