"""``record.json`` of an unlearned model: what was asked for, what was done, and what is left of the classes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from unhot.records.base import Count, Record, Stored, check_once
from unhot.records.environment import Cost, Environment
from unhot.records.model import ClassLabel

STILL_RECOGNISED = 0.05  # share of the samples of a class up to which it counts as forgotten


class SamplesInfo(Stored):
    """The images that a method was given.

    Attributes:
        origin: Where they came from, in words ("fashion-mnist, train split").
        count: How many of each class, in the order of the record's classes.
        indices: Positions in the data set or names of the files, where known.
        sha256: Of each image's pixels, in order.
    """

    origin: str
    count: tuple[Count, ...]
    indices: tuple[Count | str, ...] = ()
    sha256: tuple[str, ...]

    @model_validator(mode="after")
    def _one_for_each_image(self) -> Self:
        if sum(self.count) != len(self.sha256) or len(self.indices) not in (0, len(self.sha256)):
            raise ValueError("each image needs one digest, one index if any has one, and to be counted once")
        return self


class RetainInfo(Stored):
    """The images of other classes that a method was given to read.

    Attributes:
        origin: Where they came from, in words.
        count: How many.
        sha256: Of the list of each image's SHA-256 and of the list of their classes' indices.
    """

    origin: str
    count: int
    sha256: str


class Recognised(Stored):
    """How many images of a class a model classifies as it, before a run and after it.

    Attributes:
        n: Images.
        before: Of these, classified as the class by the original.
        after: By the unlearned model.
    """

    label: ClassLabel
    n: int = Field(ge=0)
    before: int = Field(ge=0)
    after: int = Field(ge=0)

    @property
    def forgotten(self) -> bool:
        """Whether the class may be noted as forgotten: hardly an image of it is classified as it any more."""
        return self.n > 0 and self.after <= STILL_RECOGNISED * self.n


class RetainedAccuracy(Stored):
    """Accuracy on images of the retained classes, before a run and after it.

    Attributes:
        origin: Where the images came from, in words.
        given: How many there were.
        n: How many of them, drawn at random, were evaluated.
        read_by_method: Whether the method could read them too, and may do better on them than on others.
        before: Share that the original classifies correctly.
        after: Share that the unlearned model does.
        worst_class: The class that lost most.
    """

    origin: str
    given: int
    n: int
    read_by_method: bool
    before: float
    after: float
    worst_class: Recognised


class ForgetRecord(Record):
    """``record.json`` of an unlearned model: enough to repeat the run and to check that it is the one.

    Attributes:
        digest: Of the method, its hyperparameters, the seed, the model and its input, the samples, the guard and the
            images of other classes, where the method reads them: what determines the result.
        uses: What it could read.
        retain: The images of other classes that it could read; None if it could read none.
        guard_sha256: Of the stored statistics that it was given; None if it was given none.
        notes: What the method measured on its way, all from data that it may read.
        recognised: How many of the samples of each class are classified as it; after these, of each class that the
            method itself took for a part of the request, how many of the other images that were given.
        retained_accuracy: None if no images of retained classes were given.
    """

    kind: Literal["forget"] = "forget"
    digest: str
    method: str
    hyperparameters: dict[str, JsonValue]
    uses: tuple[str, ...]
    classes: tuple[ClassLabel, ...]
    samples: SamplesInfo
    retain: RetainInfo | None = None
    guard_sha256: str | None = None
    seed: int
    model_sha256: str
    weights_sha256: str
    stop_reason: str
    notes: dict[str, JsonValue]
    recognised: tuple[Recognised, ...] = ()
    retained_accuracy: RetainedAccuracy | None = None
    cost: Cost
    environment: Environment

    @model_validator(mode="after")
    def _one_count_for_each_class(self) -> Self:
        check_once("class", (c.index for c in self.classes))
        if len(self.samples.count) != len(self.classes):
            raise ValueError("each class needs one count of samples")
        return self
