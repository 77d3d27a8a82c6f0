"""``unhot guard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unhot.cli.options import (
    Arch,
    ArchOption,
    DataDir,
    Device,
    Download,
    Filter,
    Head,
    Json,
    Mean,
    Resize,
    Seed,
    Size,
    Std,
    TrustPickle,
    loader,
    make_runtime,
)
from unhot.errors import OptionError
from unhot.files import check_new


def guard(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="With --data a model, without it a guard file.")],
    out: Annotated[Path, typer.Option("--out", help="File to write; it must not exist yet.")],
    data: Annotated[
        str | None, typer.Option("--data", help="What the model was trained on: a named data set, or a folder.")
    ] = None,
    max_images: Annotated[
        int | None,
        typer.Option("--max-images", min=1, help="Look at no more images, at as many of each class [10,000]."),
    ] = None,
    drop: Annotated[list[str], typer.Option("--drop", help="Leave this class out; repeat for several.")] = [],  # noqa: B006
    seed: Seed = 0,
    arch: Arch = None,
    arch_option: ArchOption = [],  # noqa: B006
    image_size: Size = None,
    resize: Resize = None,
    interpolation: Filter = None,
    mean: Mean = None,
    std: Std = None,
    head: Head = None,
    trust_pickle: TrustPickle = False,
    data_dir: DataDir = None,
    download: Download = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Collect statistics of a model's training images for unhot forget --guard, or drop classes from them."""
    from unhot.cli.output import say
    from unhot.data.matching import find_class
    from unhot.data.preprocessing import Preprocessing
    from unhot.data.source import load_source
    from unhot.statistics import MAX_IMAGES, ClassStatistics

    check_new(out)
    if data is None:
        if not drop:
            raise OptionError(f"There is nothing to do with {source}. Give --data, or the classes to --drop.")
        made = ClassStatistics.load(source)
    else:
        wanted = Preprocessing.parse(image_size, resize, interpolation, mean, std)
        images = load_source(data, data_dir, download)
        model = loader(images, arch, arch_option, wanted, head, trust_pickle)(source)
        made = ClassStatistics.collect(model, images.train_images, make_runtime(device, seed), max_images or MAX_IMAGES)
    known = made.info.classes
    made = made.excluding([known[find_class(c, known)] for c in drop])
    made.save(out)
    if json:
        say(made.info.to_json())
        return
    size = out.stat().st_size / 1e6
    say(f"Wrote statistics of {len(made.info.classes)} classes, {size:.1f} MB, to {out}. Protect it as the images.")
