"""``record.json`` of an unlearned model: the request, the run, and how its samples are classified afterwards."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from unhot.records.base import Count, Record, Stored, check_once
from unhot.records.environment import Cost, Environment
from unhot.records.model import ClassLabel

MOST_TEXT = 2_000  # characters of what a user writes into a record
STILL_RECOGNISED = 0.05  # share of the samples of a class up to which it counts as forgotten


class SamplesInfo(Stored):
    """The samples of a run.

    Attributes:
        origin: Where they came from, in words ("fashion-mnist, train split").
        count: Number of images of each class, in the order of the record's classes.
        indices: Positions in the data set or names of the files, if known.
        sha256: SHA-256 of each image's pixels, in order.
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
    """The retained images that a method could read.

    Attributes:
        origin: Where they came from, in words.
        count: Number of images.
        labelled: Whether their classes were given; else they are those that the original classifies them as.
        sha256: Digest of the list of the images' SHA-256 and of the list of their classes' indices.
    """

    origin: str
    count: int
    labelled: bool = True
    sha256: str


class Recognised(Stored):
    """How many images of a class a model classifies as it, before a run and after it.

    Attributes:
        n: Number of images.
        before: Number of these that the original classifies as the class.
        after: Number of these that the unlearned model classifies as the class.
    """

    label: ClassLabel
    n: int = Field(ge=0)
    before: int = Field(ge=0)
    after: int = Field(ge=0)

    @property
    def forgotten(self) -> bool:
        """Whether the class may be recorded as forgotten: at most 5 % of its images are still classified as it."""
        return self.n > 0 and self.after <= STILL_RECOGNISED * self.n


class RetainedAccuracy(Stored):
    """Accuracy on images of the retained classes, before a run and after it.

    Attributes:
        origin: Where the images came from, in words.
        given: Number of images that were passed.
        n: Number of these, drawn at random, that were evaluated.
        read_by_method: Whether the method could read them too, and may do better on them than on others.
        before: Accuracy of the original.
        after: Accuracy of the unlearned model.
        worst_class: The class that lost most.
        missing: Number of the other classes of which there are no images.
    """

    origin: str
    given: int
    n: int
    read_by_method: bool
    before: float
    after: float
    worst_class: Recognised
    missing: Count = 0


class ForgetRecord(Record):
    """``record.json`` of an unlearned model: enough to repeat the run and to check that it is the one.

    Attributes:
        digest: Digest of all that determines the result: the method, its hyperparameters, the seed, the model and its
            input, the samples, and the guard and the retained images if the method reads them.
        uses: Data that the method could read.
        retain: The retained images that it could read; None if there were none.
        guard_sha256: SHA-256 of the stored statistics; None if none were passed.
        note: What whoever ran it wrote about it.
        notes: Values that the method measured during the run, all from data that it may read.
        recognised: How the samples of each class are classified; after these, the retained images of each class that
            the method itself found to belong to the request.
        retained_accuracy: Accuracy on the retained images; None if none were passed.
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
    note: str = Field(default="", max_length=MOST_TEXT)
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
