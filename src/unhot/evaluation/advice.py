"""advise(): which method suits what somebody has, why, what it needs, and what can be claimed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unhot.methods import DEEP, GUARDED, QUICK, REFERENCES, catalogue
from unhot.records.advice import Advice
from unhot.records.choices import Holder

REFERENCE = "unhot reference makes a stand-in for one from a few hundred images"


@dataclass(frozen=True)
class Given:
    """What somebody has.

    Attributes:
        holder: From whom the class is to be hidden: who holds the outputs, the features or the weights.
        samples: Number of images of the class.
        retained: Number of images of other classes that a method may read.
        labelled: Whether their classes are known.
        guard: Whether there are stored statistics of the training images.
        evaluated: Whether there are test images.
        with_train: Whether there are training images among them.
        retrained: Number of models that were trained without the class.
        batch_norm: Whether the net has batch normalisation, which stores statistics of its training images.
    """

    holder: Holder
    samples: int
    retained: int = 0
    labelled: bool = True
    guard: bool = False
    evaluated: bool = False
    with_train: bool = False
    retrained: int = 0
    batch_norm: bool = True


def advise(given: Given) -> Advice:
    """Choose a method by what it is made for and what it reads; nothing is run."""
    deep = GUARDED if given.guard and not given.retained else DEEP
    method = QUICK if given.holder == "outputs" else deep
    why = _for_outputs() if method == QUICK else _for_features(given, method)
    claims, no_claims = _claims(given)
    return Advice(
        holder=given.holder,
        samples=given.samples,
        method=method,
        why=tuple(why),
        needs=tuple(_needs(given, method)),
        others=tuple(name for name in catalogue if name not in (method, *REFERENCES) and _can_run(name, given)),
        claims=tuple(claims),
        no_claims=tuple(no_claims),
    )


def _can_run(name: str, given: Given) -> bool:
    """Return whether a method reads no more than there is, as the catalogue says."""
    reads = catalogue.known(name).reads.split(", ")
    return "retain" not in reads or (given.retained > 0 and given.labelled)


def _for_outputs() -> Iterator[str]:
    yield "It takes seconds, and nothing but the samples."
    yield (
        "It hides the class from whoever gets answers only: in the features most of it stays. If somebody gets "
        "features or weights, ask with --holder features or --holder weights."
    )


def _for_features(given: Given, method: str) -> Iterator[str]:
    yield f"{QUICK}, the quick method, mostly hides a class: whoever holds the {given.holder} finds it again."
    if method == GUARDED:
        yield "It matches the features of the class to those of the other classes, which the guard describes."
        yield f"If an audit finds too much left, {DEEP} with the same guard goes further, and costs more time."
    else:
        yield f"{DEEP} renews a part of the last stage, and distils into it what the net does on the other classes."
    if given.holder == "weights":
        yield f"The layers before the last stage stay those of the original. {DEEP} renews more of them with -o depth=."


def _needs(given: Given, method: str) -> Iterator[str]:
    yield f"Images of the class: {given.samples:,} are given."
    if method == DEEP:
        yield "Minutes; it says how many before it begins, and fits its work to -o minutes=."
        yield from _stand_ins(given)
    if method != QUICK and not given.guard:
        yield f"A guard (unhot guard collect), if training images are still at hand, lets {GUARDED} be used."
    if method != GUARDED:
        yield "The loss on the other classes is estimated, and kept within -o budget=."
    if not given.evaluated:
        yield "Test images (--data), to measure what the other classes lose."


def _stand_ins(given: Given) -> Iterator[str]:
    if given.retained:
        kind = "" if given.labelled else " without classes"
        yield f"Stand-ins for the other classes: the {given.retained:,} images{kind} of --retain."
        return
    yield (
        "Stand-ins for the other classes: none are given, so they are inverted from the net. Images of the other "
        "classes (--retain) protect these better. Any pictures, in a folder without class folders, are taken too; "
        "in the one run that was measured the loss was overestimated by a factor of four."
    )
    if not given.batch_norm:
        yield (
            "This net has no batch normalisation: inverted images look like noise, and the estimate of loss is a "
            "guess. Give --retain."
        )


def _claims(given: Given) -> tuple[list[str], list[str]]:
    """Return what an audit can find with what there is, and what it cannot."""
    if not given.evaluated:
        return (
            ["how many of the samples are still classified as the class"],
            ["anything about other images: there is no audit without test images (--data)"],
        )
    claims = [
        "whether test images of the class are still classified as it, and what the other classes lose",
        "that the class is only hidden at the output, where outputs or features are still the original's",
    ]
    membership = "whether images of the class were in the training data (membership attacks)"
    no_claims: list[str] = []
    (claims if given.with_train else no_claims).append(
        membership + ("" if given.with_train else ": needs training images in --data")
    )
    level = "whether more is left than in a model that never saw the class: short of its level, at it, or beyond"
    if given.retrained:
        claims.append(level)
    else:
        no_claims.append(f"{level}. That needs a retrained model (unhot train --exclude-class); {REFERENCE}")
    if given.retrained < 2:
        no_claims.append("how far retrained models differ among themselves: needs a second one")
    return claims, no_claims
