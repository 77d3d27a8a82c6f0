"""``audit.json``: the measurements and the verdict of an audit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Self

from pydantic import Field, JsonValue, StrictFloat, StrictStr, model_validator

from unhot.records.base import Count, Record, Seconds, Stored, check_once
from unhot.records.codes import FlagCode as FlagCode
from unhot.records.codes import ReasonCode as ReasonCode
from unhot.records.codes import StoredLabel as StoredLabel
from unhot.records.codes import VerdictLabel as VerdictLabel
from unhot.records.environment import Environment
from unhot.records.forget import ForgetRecord
from unhot.records.measure import Holder, Measure
from unhot.records.measure import Split as Split
from unhot.records.model import ClassLabel, InputSpec

Subject = Literal["original", "masked", "unlearned", "retrained"]


# names of pictures whose points have numbers as x, and shares as y
FEW_SHOT = ("few-shot-outputs", "few-shot", "few-shot-layers")
NUMBERS = frozenset({"relearning", *FEW_SHOT, "roc", "map"})
SHARES = frozenset({"relearning", *FEW_SHOT, "roc", "layers", "confusion"})
COMMON_AXIS = frozenset({"relearning", *FEW_SHOT, "confusion"})  # all models of a picture have the same points
LEAST = {"relearning": 0, **dict.fromkeys(FEW_SHOT, 1)}  # least x: steps, and images
ROUNDING = 1e-6
LARGEST = 1e100  # largest number that can be drawn
PIXELS = 2**26  # pixels of a file of pictures: a thousand images of 256 by 256


class Measurement(Stored):
    """One measured value with its interval.

    Attributes:
        subject: The model.
        split: The images; None where none are involved.
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
        name: Name of the picture ("relearning", "few-shot", "few-shot-outputs", "few-shot-layers", "roc", "layers",
            "confusion", "map").
        x: Horizontal coordinates, or the names of categories.
        y: Vertical coordinates.
        groups: The class of each point, where points belong to classes.
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
        if any(abs(v) > LARGEST for v in (*numbers, *self.y)) or any(x < LEAST.get(self.name, x) for x in numbers):
            raise ValueError(f"a point of {self.name} is out of range")
        shares = (*self.y, *numbers) if self.name == "roc" else self.y
        if self.name in SHARES and not all(-ROUNDING <= v <= 1 + ROUNDING for v in shares):
            raise ValueError(f"a share of {self.name} is not in 0..1")
        return self


class MeasurementKey(Stored):
    """The identity of a measurement."""

    name: str
    subject: Subject
    split: Split | None = "test"


class Statement(Stored):
    """A statement about measurements, as data; ``report/sentences.py`` puts it into words.

    Attributes:
        code: What is stated.
        measurements: The measurements that it is about.
        numbers: Numbers computed from these, and the thresholds that they were compared with, by name.
    """

    code: ReasonCode | FlagCode
    measurements: tuple[MeasurementKey, ...] = ()
    numbers: dict[str, float] = Field(default_factory=dict)


class Reason(Statement):
    """One step on the way to a verdict."""

    code: ReasonCode

    @model_validator(mode="before")
    @classmethod
    def _older(cls, found: object) -> object:
        """Tell a code that files without holders used of all measures at once from that of one measure."""
        if isinstance(found, dict) and found.get("code") == "nearly_all_left" and not found.get("measurements"):
            return found | {"code": "nearly_all_readable"}
        return found


class Flag(Statement):
    """A caveat of a verdict."""

    code: FlagCode


class Conclusion(Stored):
    """What is concluded for somebody who holds a part of a model.

    Attributes:
        label: One of six labels, or "undecided".
        because: The reasons, in order.
    """

    label: StoredLabel
    because: tuple[Reason, ...]


class Verdict(Stored):
    """The conclusion from all measurements.

    Attributes:
        label: One of six labels, or "undecided": that of ``holder``.
        because: The reasons, in order. In files of version 1 these, and the flags, are sentences.
        holder: Whose conclusion is the headline; None in files that knew no holders.
        holders: The conclusion for each.
        thresholds: The thresholds that the measurements were compared with.
        flags: Caveats.
    """

    label: StoredLabel
    because: tuple[Reason, ...] | tuple[str, ...]
    holder: Holder | None = None
    holders: dict[Holder, Conclusion] = Field(default_factory=dict)
    thresholds: dict[str, float]
    flags: tuple[Flag, ...] | tuple[str, ...] = ()

    @model_validator(mode="after")
    def _headline_is_of_its_holder(self) -> Self:
        if self.holder is not None:
            own = self.holders.get(self.holder)
            if own is None or own.label != self.label:
                raise ValueError("the label of the verdict is not that of its holder")
        return self


class AuditInputs(Stored):
    """The models and images of an audit, by their digests.

    Attributes:
        images: Number of images of each split that were evaluated.
        given: Number of images that were passed; a split that is missing here was evaluated as a whole.
        preprocessing: How images became inputs of the original; None if it takes tensors only.
        forgotten_before: Classes that earlier requests made a model forget.
        left_out: Number of images of these classes, which are not evaluated.
        test_in_train: Number of test images that are among the train images.
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
        images: Number of images of each split in it, the same for every model.
        sha256: SHA-256 of the file.
    """

    images: dict[Split, Count]
    sha256: str


class PictureFile(Stored):
    """A PNG file beside the record: images of one size, side by side in one row.

    Attributes:
        file: Name of the file.
        images: Number of images.
        height: Height of one image in pixels.
        width: Width of one image in pixels.
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
    """Pictures that an attack made of the models.

    Attributes:
        name: Name of the pictures in the attack.
        title: Title in plain words; empty if only the name is known.
        caption: What the pictures show.
        files: A file for each model; of several retrained models only the first has one.
    """

    name: str
    title: str = ""
    caption: str = ""
    files: dict[Subject, PictureFile] = Field(min_length=1)


class AuditCost(Stored):
    """The cost of forgetting and of the audit.

    Attributes:
        forget_seconds: Time of the method, from the unlearned model's record; None if there is none.
        floor_seconds: Time of one forward and backward pass of the original over as many images; median of three.
        retrain_seconds: Training time of the retrained model, from its record.
        audit_seconds: Time of this audit.
        forward_seconds: Part of this time in which all models were run on all images.
    """

    forget_seconds: Seconds | None = None
    floor_seconds: Seconds | None = None
    retrain_seconds: Seconds | None = None
    audit_seconds: Seconds
    forward_seconds: Seconds


class AuditRecord(Record):
    """``audit.json``.

    Attributes:
        measures: Declarations of what is measured, in the order in which it is shown; files of unhot 0.1 lack them.
        made_by: The record of the run that made the unlearned model, if it came with one.
        attacks: The settings of each attack that was run.
        scores: None if membership could not be attacked; then there is no such file.
        pictures: Pictures made by attacks. Files of version 1 do not name them, nor the samples.
        samples: The samples of the method, if they are known and may be shown.
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
        """Return one measurement, which may be absent; None if it was not asked for."""
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
