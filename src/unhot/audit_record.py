"""``audit.json``: what an audit measured, as it is on disk."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, StrictFloat, StrictStr

from unhot.record import ClassLabel, Environment, ForgetRecord, InputSpec, Record, Stored

Subject = Literal["original", "masked", "unlearned", "retrained"]
Split = Literal["train", "test"]
VerdictLabel = Literal[
    "not forgotten",
    "model damaged",
    "hidden at the output only",
    "short of a retrained model",
    "at the level of a retrained model",
    "beyond a retrained model",
    "not decided without a retrained model",
]


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
    n: int = 0
    unit: str = "fraction"
    higher_is_better: bool | None = None
    runs: tuple[float, ...] = ()
    absent_because: str | None = None


class ClassAccuracy(Stored):
    """Accuracy on the images of one class, with its Wilson interval."""

    subject: Subject
    split: Split
    label: ClassLabel
    value: float
    low: float
    high: float
    n: int


class Curve(Stored):
    """Points of a picture.

    Attributes:
        name: Which picture ("relearning", "roc", "layers", "confusion", "map").
        x: Horizontal, or the names of the categories.
        y: Vertical.
        groups: A name for each point, where points belong to classes.
    """

    name: str
    subject: Subject
    run: int = 0
    x: tuple[StrictFloat, ...] | tuple[StrictStr, ...]
    y: tuple[float, ...]
    groups: tuple[str, ...] = ()


class Verdict(Stored):
    """What the measurements say together.

    Attributes:
        label: One of six, or that it cannot be decided.
        because: The measurements that decided it, in words.
        thresholds: With which they were compared.
        flags: What else somebody who reads the verdict should know.
    """

    label: VerdictLabel
    because: tuple[str, ...]
    thresholds: dict[str, float]
    flags: tuple[str, ...] = ()


class AuditInputs(Stored):
    """Digests of what was audited.

    Attributes:
        images: How many of each split were looked at.
        given: How many there were; a split that is missing here was looked at as a whole.
        preprocessing: How images became inputs of the original; None if it takes tensors only.
    """

    original_sha256: str
    unlearned_sha256: str
    retrained_sha256: tuple[str, ...] = ()
    data: str
    data_sha256: dict[str, str]
    images: dict[str, int]
    given: dict[str, int] = Field(default_factory=dict)
    preprocessing: InputSpec | None = None


class ScoresInfo(Stored):
    """``scores.csv``, which lies beside the record: the membership scores of single images.

    Attributes:
        images: How many images of each split it holds, for every model the same.
        sha256: Of the file.
    """

    images: dict[str, int]
    sha256: str


class AuditCost(Stored):
    """What forgetting took, and what the audit took.

    Attributes:
        forget_seconds: Of the method, from the unlearned model's record; None if it has none.
        floor_seconds: One forward and backward pass of the original over as many images; median of three.
        retrain_seconds: Of training the retrained model, from its record.
        audit_seconds: Of this audit.
        forward_seconds: Of these, for running all models over all images once.
    """

    forget_seconds: float | None = None
    floor_seconds: float | None = None
    retrain_seconds: float | None = None
    audit_seconds: float
    forward_seconds: float


class AuditRecord(Record):
    """``audit.json``.

    Attributes:
        made_by: The record of the run that made the unlearned model, if it came with one.
        attacks: The settings of each attack that was run.
        scores: None if membership could not be attacked; then there is no such file.
    """

    kind: Literal["audit"] = "audit"
    classes: tuple[ClassLabel, ...]
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    per_class: tuple[ClassAccuracy, ...]
    curves: tuple[Curve, ...]
    attacks: dict[str, dict[str, JsonValue]]
    scores: ScoresInfo | None = None
    seed: int
    inputs: AuditInputs
    made_by: ForgetRecord | None
    cost: AuditCost
    environment: Environment
