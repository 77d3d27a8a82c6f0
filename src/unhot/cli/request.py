"""The images of a request: those of the classes to forget, and of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from unhot.errors import OptionError

if TYPE_CHECKING:
    from unhot.cli.options import DataOptions
    from unhot.data.images import LabelledImages
    from unhot.data.samples import Samples
    from unhot.data.source import Source
    from unhot.data.unlabelled import Unlabelled
    from unhot.methods.base import Method

SHOTS = 16
MOST = 1_024  # images of a class that are taken without being asked for: more teach no more, and cost memory and time


def check_reads_retained(method: Method) -> None:
    """Refuse images of other classes for a method that does not read them.

    Raises:
        OptionError: It does not.
    """
    if "retain" not in method.uses + method.may_use:
        raise OptionError(
            f"{method.name} does not read images of the retained classes, so that --retain would change nothing. To "
            "compare the accuracy on them before and after, give them as --data."
        )


def retained_images(src: str, may_lack_labels: bool, how: DataOptions) -> Source | Unlabelled:
    """Read the images of other classes; pictures without classes are taken as unlabelled, with a note."""
    from unhot.cli.output import note
    from unhot.data import catalogue as datasets
    from unhot.data.containers.listed import read_contents
    from unhot.data.source import found_at, of_contents
    from unhot.data.unlabelled import Unlabelled

    if src in datasets:
        return how.source(src)
    contents = read_contents(found_at(src, how.data_dir))
    if contents.whole is None or contents.labelled or not may_lack_labels:
        return of_contents(contents, how.skip_broken)
    images = contents.whole.without_broken() if how.skip_broken else contents.whole
    note(f"{src} has no class folders. Its images ({len(images)}) are taken as unlabelled.")
    return Unlabelled(images)


def labelled_in(rest: Source | Unlabelled | None) -> LabelledImages | None:
    """Return the labelled images of other classes, if there are any; a folder without splits is all test."""
    from unhot.data.source import Source

    if not isinstance(rest, Source):
        return None
    return rest.test if rest.train is None else rest.train


def samples_of(
    src: str,
    train: LabelledImages | None,
    positions: list[int],
    classes: list[tuple[int, str] | tuple[str, str]],
    shots: int | None,
    seed: int,
    how: DataOptions,
) -> Samples:
    """Take the images of a folder or a file, or draw some of them or of a named data set.

    Args:
        src: A folder, a file or the name of a data set.
        train: The images of the data set.
        positions: The classes' positions in the data set.
        classes: The index and the name of each, after either of which its images may be labelled.
        shots: Images of each class.
        seed: The seed of the draw.
        how: How data is read.
    """
    from unhot.cli.output import note
    from unhot.data.containers.listed import read_contents
    from unhot.data.samples import draw_at, of_contents
    from unhot.data.source import found_at

    if train is not None:
        return draw_at(train, positions, SHOTS if shots is None else shots, seed)
    place = found_at(src, how.data_dir, "samples")
    contents = read_contents(place, [str(c) for both in classes for c in both])
    names = contents.sampled.class_names or () if contents.labelled else ()
    wanted = [str(c[0]) if c[1] not in names and str(c[0]) in names else c[1] for c in classes]
    # images without names are of the class whatever else has its name
    found = of_contents(contents, wanted if names else [index for index, _ in classes])
    counts = [int((found.images.y == p).sum()) for p in found.positions]
    if shots is None and max(counts) > MOST:
        note(f"{src} has up to {max(counts):,} images of a class. Of each {MOST:,} are drawn; --shots changes that.")
        shots = min(MOST, *counts) if len(counts) > 1 else MOST
    if shots is not None:
        return draw_at(found.images, found.positions, shots, seed, how.skip_broken)
    return replace(found, images=found.images.without_broken()) if how.skip_broken else found
