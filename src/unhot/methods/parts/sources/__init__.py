"""Sources: what stands in for images of the retained classes while a method trains; one file for each."""

from __future__ import annotations

from unhot.methods.parts.data import Data
from unhot.methods.parts.sources.guarded import Guarded
from unhot.methods.parts.sources.inverted import Inverted
from unhot.methods.parts.sources.retained import Retained, UnlabelledImages
from unhot.methods.parts.sources.source import COPIES, Source


def sources_of(data: Data, images: int, descent: int, beside: bool = False) -> list[Source]:
    """Return the sources at hand: images and a guard where they are given, else images that are made.

    Args:
        data: The data of the method.
        images: Number of images; those that are made fill up what is missing. Of given images more are taken, with
            fewer copies of each, up to the same number of stand-ins.
        descent: Number of steps in which an image is made.
        beside: Whether as many are made as if none were given.
    """
    found: list[Source] = []
    if "retain" in data.uses:
        kind = Retained if data.labelled else UnlabelledImages
        count = min(images * COPIES, len(data.retain))
        found.append(kind(count, min(COPIES, images * COPIES // count)))
    if "guard" in data.uses:
        found.append(Guarded(images))
    missing = images - (0 if beside else sum(s.images for s in found))
    return [*found, Inverted(missing, descent, images)] if missing > 0 else found
