"""``audit.json``: what an audit measured, as it is on disk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, StrictFloat, StrictStr, model_validator

from unhot.records.base import Count, Record, Seconds, Stored, check_once
from unhot.records.environment import Environment
from unhot.records.forget import ForgetRecord
from unhot.records.measure import Measure
from unhot.records.measure import Split as Split
from unhot.records.model import ClassLabel, InputSpec

Subject = Literal["original", "masked", "unlearned", "retrained"]
VerdictLabel = Literal[
    "not forgotten",
    "model damaged",
    "hidden at the output only",
    "short of a retrained model",
    "at the level of a retrained model",
    "beyond a retrained model",
    "undecided (no retrained model)",
]
RENAMED = {"not decided without a retrained model": "undecided (no retrained model)"}  # labels of older files
StoredLabel = Annotated[VerdictLabel, BeforeValidator(lambda v: RENAMED.get(v, v) if isinstance(v, str) else v)]

# why a verdict was given, and what else to know; the sentences are in report/sentences.py
ReasonCode = Literal[
    "damaged",
    "still_recognised",
    "features_unchanged",
    "measured",
    "nearly_all_left",
    "no_retrained_model",
    "nothing_to_read",
    "small_gap",
    "gap_closed",
    "apart",
]
FlagCode = Literal[
    "below_retrained",
    "class_given_away",
    "class_hidden",
    "members_below_chance",
    "members_above_chance",
    "earlier_classes_left_out",
    "test_images_in_train",
    "other_weights",
    "near_chance",
]


# what the curves of a picture hold: numbers along the horizontal axis, shares along the vertical one
NUMBERS = frozenset({"relearning", "roc", "map"})
SHARES = frozenset({"relearning", "roc", "layers", "confusion"})
COMMON_AXIS = frozenset({"relearning", "confusion"})  # all models of a picture have the same points
ROUNDING = 1e-6
LARGEST = 1e100  # what can be drawn
PIXELS = 2**26  # of a file of pictures: a thousand images of 256 by 256


class Measurement(Stored):
    """One measured value with its interval.

    Attributes:
        subject: Which model.
        split: Which images; None where none are involved.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Number of images (or runs) behind the value.
        runs: The value of each retrained model, where there are several.
        absent_because: Why there is no value; then ``value``, ``low`` and ``high`` are None.
    """

    name: str
    subject: Subject
    split: Split | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: Count = 0
    unit: str = "fraction"
    higher_is_better: bool | None = None
    runs: tuple[float, ...] = ()
    absent_because: str | None = None

    @model_validator(mode="after")
    def _a_value_or_a_reason(self) -> Self:
        known = (self.value, self.low, self.high)
        if self.absent_because is not None:
            if any(v is not None for v in known) or self.runs:
                raise ValueError(f"{self.name} ({self.subject}) has a value and a reason for its absence")
        elif any(v is None for v in known):
            raise ValueError(
                f"{self.name} ({self.subject}) needs a value with an interval, or a reason for its absence"
            )
        else:
            _check_order(known, f"{self.name} ({self.subject})")
        return self


class ClassAccuracy(Stored):
    """Accuracy on the images of one class, with its Wilson interval."""

    subject: Subject
    split: Split
    label: ClassLabel
    value: float = Field(ge=0, le=1)
    low: float
    high: float
    n: Count

    @model_validator(mode="after")
    def _in_its_interval(self) -> Self:
        _check_order((self.value, self.low, self.high), f"the accuracy of {self.label.name} ({self.subject})")
        return self


class PlotData(Stored):
    """Points of a picture.

    Attributes:
        name: Which picture ("relearning", "roc", "layers", "confusion", "map").
        x: Horizontal, or the names of the categories.
        y: Vertical.
        groups: A name for each point, where points belong to classes.
    """

    name: str
    subject: Subject
    run: Count = 0
    x: tuple[StrictFloat, ...] | tuple[StrictStr, ...]
    y: tuple[float, ...] = Field(min_length=1)
    groups: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if len(self.x) != len(self.y) or len(self.groups) not in ([len(self.y)] if self.name == "map" else [0]):
            raise ValueError(f"the points of a curve of {self.name} need an x, a y and, on a map, a group each")
        numbers = [x for x in self.x if not isinstance(x, str)]
        if self.name in NUMBERS and len(numbers) < len(self.x):
            raise ValueError(f"x of {self.name} must be numbers")
        if any(abs(v) > LARGEST for v in (*numbers, *self.y)) or (self.name == "relearning" and min(numbers) < 0):
            raise ValueError(f"a point of {self.name} is out of range")
        shares = (*self.y, *numbers) if self.name == "roc" else self.y
        if self.name in SHARES and not all(-ROUNDING <= v <= 1 + ROUNDING for v in shares):
            raise ValueError(f"a share of {self.name} is not in 0..1")
        return self


class MeasurementKey(Stored):
    """Which measurement."""

    name: str
    subject: Subject
    split: Split | None = "test"


class Statement(Stored):
    """What was found, as data; ``report/sentences.py`` puts it into words.

    Attributes:
        code: What is stated.
        measurements: Of which measurements.
        numbers: What was computed of these, and the thresholds that it was compared with, by name.
    """

    code: ReasonCode | FlagCode
    measurements: tuple[MeasurementKey, ...] = ()
    numbers: dict[str, float] = Field(default_factory=dict)


class Reason(Statement):
    """One step on the way to a verdict."""

    code: ReasonCode


class Flag(Statement):
    """What somebody who reads a verdict should know besides."""

    code: FlagCode


class Verdict(Stored):
    """What the measurements say together.

    Attributes:
        label: One of six, or that it cannot be decided.
        because: The steps that led to it, in order. In files of version 1 these, and the flags, are sentences.
        thresholds: With which the measurements were compared.
        flags: What else somebody who reads the verdict should know.
    """

    label: StoredLabel
    because: tuple[Reason, ...] | tuple[str, ...]
    thresholds: dict[str, float]
    flags: tuple[Flag, ...] | tuple[str, ...] = ()


class AuditInputs(Stored):
    """Digests of what was audited.

    Attributes:
        images: How many of each split were looked at.
        given: How many there were; a split that is missing here was looked at as a whole.
        preprocessing: How images became inputs of the original; None if it takes tensors only.
        forgotten_before: Classes that earlier requests made a model forget.
        left_out: How many images of these there were; they are not looked at.
        test_in_train: How many of the test images are among the train images.
    """

    original_sha256: str
    unlearned_sha256: str
    retrained_sha256: tuple[str, ...] = ()
    data: str
    data_sha256: dict[Split, str]
    images: dict[Split, Count]
    given: dict[Split, Count] = Field(default_factory=dict)
    preprocessing: InputSpec | None = None
    forgotten_before: tuple[ClassLabel, ...] = ()
    left_out: dict[Split, Count] = Field(default_factory=dict)
    test_in_train: Count = 0


class ScoresInfo(Stored):
    """``scores.csv``, which lies beside the record: the membership scores of single images.

    Attributes:
        images: How many images of each split it holds, for every model the same.
        sha256: Of the file.
    """

    images: dict[Split, Count]
    sha256: str


class PictureFile(Stored):
    """A PNG file beside the record: images of one size, side by side in one row.

    Attributes:
        file: Its name.
        images: How many.
        height: Of one image, pixels.
        width: Of one image, pixels.
    """

    file: str = Field(pattern=r"^[\w-]+\.png$")
    images: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)

    @model_validator(mode="after")
    def _not_too_large(self) -> Self:
        if self.images * self.height * self.width > PIXELS:
            raise ValueError(f"{self.file} has more than {PIXELS:,} pixels, which no picture of an audit has")
        return self


class Pictures(Stored):
    """What an attack drew of the models.

    Attributes:
        name: As the attack calls it.
        title: In plain words; empty if the name is all that is known.
        caption: What there is to see.
        files: A file for each model; of several retrained models the first is drawn.
    """

    name: str
    title: str = ""
    caption: str = ""
    files: dict[Subject, PictureFile] = Field(min_length=1)


class AuditCost(Stored):
    """What forgetting took, and what the audit took.

    Attributes:
        forget_seconds: Of the method, from the unlearned model's record; None if it has none.
        floor_seconds: One forward and backward pass of the original over as many images; median of three.
        retrain_seconds: Of training the retrained model, from its record.
        audit_seconds: Of this audit.
        forward_seconds: Of these, for running all models over all images once.
    """

    forget_seconds: Seconds | None = None
    floor_seconds: Seconds | None = None
    retrain_seconds: Seconds | None = None
    audit_seconds: Seconds
    forward_seconds: Seconds


class AuditRecord(Record):
    """``audit.json``.

    Attributes:
        measures: What is measured, in the order in which it is shown; files of unhot 0.1 lack it.
        made_by: The record of the run that made the unlearned model, if it came with one.
        attacks: The settings of each attack that was run.
        scores: None if membership could not be attacked; then there is no such file.
        pictures: What attacks drew. Files of version 1 do not name it, nor the samples.
        samples: The images that the method was given, where they are known and may be shown.
    """

    VERSION: ClassVar[int] = 2

    schema_version: int = 2
    kind: Literal["audit"] = "audit"
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    measures: tuple[Measure, ...] = ()
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    per_class: tuple[ClassAccuracy, ...]
    curves: tuple[PlotData, ...]
    attacks: dict[str, dict[str, JsonValue]]
    scores: ScoresInfo | None = None
    pictures: tuple[Pictures, ...] = ()
    samples: PictureFile | None = None
    seed: int
    inputs: AuditInputs
    made_by: ForgetRecord | None
    cost: AuditCost
    environment: Environment

    def find(self, name: str, subject: Subject, split: Split | None = "test") -> Measurement | None:
        """Return one measurement, if it was asked for; it may be absent."""
        key = (name, subject, split)
        return next((m for m in self.measurements if (m.name, m.subject, m.split) == key), None)

    @property
    def picture_files(self) -> list[PictureFile]:
        """The files of pictures that lie beside the record."""
        drawn = [file for p in self.pictures for file in p.files.values()]
        return drawn if self.samples is None else [*drawn, self.samples]

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        check_once("class", (c.index for c in self.classes))
        check_once("measure", (m.name for m in self.measures))
        if self.measures and (missing := {m.name for m in self.measurements} - {m.name for m in self.measures}):
            raise ValueError(f"{min(missing)} is measured, but measures does not say what it is")
        check_once("measurement", ((m.name, m.subject, m.split) for m in self.measurements))
        check_once("accuracy", ((a.subject, a.split, a.label.index) for a in self.per_class))
        check_once("file", (f.file for f in self.picture_files))
        check_once("curve", ((c.name, c.subject, c.run) for c in self.curves))
        retrained = len(self.inputs.retrained_sha256)
        if any(c.run >= (retrained if c.subject == "retrained" else 1) for c in self.curves):
            raise ValueError("there is a curve of a model that inputs does not name")
        if any(m.runs and (m.subject != "retrained" or len(m.runs) != retrained) for m in self.measurements):
            raise ValueError("runs of a measurement need one value for each retrained model")
        axes: dict[str, tuple[object, ...]] = {}
        for c in self.curves:
            axis = c.groups if c.name == "map" else c.x if c.name in COMMON_AXIS else ()
            if axes.setdefault(c.name, axis) != axis:
                raise ValueError(f"the curves of {c.name} differ in their points")
        return self


def _check_order(known: Iterable[float | None], what: str) -> None:
    value, low, high = (v or 0.0 for v in known)
    if not low - ROUNDING <= value <= high + ROUNDING:
        raise ValueError(f"{what} is not within its interval")
