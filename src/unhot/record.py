"""What unhot writes to disk: one pydantic model for each kind of JSON file, its digest and its schema version."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictFloat, StrictStr, ValidationError, model_validator

from unhot.errors import InputError
from unhot.files import write_atomic

Subject = Literal["original", "masked", "unlearned", "retrained"]
Split = Literal["train", "test"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
VerdictLabel = Literal[
    "not forgotten",
    "model damaged",
    "hidden at the output only",
    "short of a retrained model",
    "at the level of a retrained model",
    "beyond a retrained model",
    "not decided without a retrained model",
]


class Stored(BaseModel):
    """A frozen piece of a record: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Record(Stored):
    """A whole JSON file.

    Attributes:
        schema_version: The version of the layout; a file of a newer unhot is refused by name.
    """

    VERSION: ClassVar[int] = 1

    schema_version: int = 1

    def to_json(self) -> str:
        """Return the file's text: fields in their declared order, two spaces of indent."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the file in one step."""
        write_atomic(path, self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file and check it.

        Raises:
            InputError: The file is missing, not JSON, or not of this kind.
        """
        try:
            return cls.parse(path.read_text(), str(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not valid JSON: {error}.") from error

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read the text of a file and check it; ``where`` names it in errors.

        Raises:
            InputError: The text is not JSON, or not of this kind.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InputError(f"{where} is not valid JSON: {error}.") from error
        version_read = raw.get("schema_version", 0) if isinstance(raw, dict) else 0
        if isinstance(version_read, int) and version_read > cls.VERSION:
            raise InputError(f"{where} was written by a newer unhot. Update unhot to read it.")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(p) for p in first["loc"])
            raise InputError(f"{where} is not a valid {cls.__name__}: {at}: {first['msg']}.") from error


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class InputSpec(Stored):
    """How an image becomes the input of a model.

    Attributes:
        height: Of the input, in pixels.
        width: Of the input, in pixels.
        channels: 1 is grey, 3 is RGB.
        mean: Subtracted from each channel after pixels are scaled to 0..1.
        std: Divided by, after that.
        resize: To what a picture is resized before ``height`` by ``width`` pixels are cropped from its centre: an int
            is its shorter side, and the aspect ratio stays; a pair is its height and width. None is the input's own
            height and width, so that nothing is cropped and the aspect ratio is lost.
        interpolation: With which it is resized; antialiased, as by Pillow.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    resize: Annotated[int, Field(gt=0)] | tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one for each channel")
        return self

    @model_validator(mode="after")
    def _large_enough_to_crop(self) -> Self:
        height, width = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        if (height is not None and height < self.height) or (width is not None and width < self.width):
            raise ValueError(f"pictures must be resized to at least {self.height} by {self.width} to be cropped to it")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def same_values(self, other: InputSpec | None) -> bool:
        """Return whether a tensor that is an input by this is one by the other too, whatever is done to pictures."""
        return other is not None and (self.shape, self.mean, self.std) == (other.shape, other.mean, other.std)


class ClassLabel(Stored):
    """A class: its name, and its index in the model as first trained."""

    index: int = Field(ge=0)
    name: str


class BundleInfo(Record):
    """``bundle.json``: what is needed, beside the weights, to use a model.

    Attributes:
        arch: As given to ``--arch``; empty for a net that was passed as an object.
        arch_options: Keyword arguments of the architecture.
        outputs: Number of outputs that the architecture is built with; excised rows are removed after that.
        classes: What each output stands for, in order.
        forgotten: The classes that were forgotten, in the order of the requests.
        input: How images become inputs; None if the model takes tensors only.
        head: Dotted name of the final linear layer.
        weights_sha256: Of ``model.safetensors``.
        graph_sha256: Of ``graph.json``; None if there is none, and the net is built by ``arch``.
    """

    arch: str
    arch_options: dict[str, JsonValue] = {}
    outputs: int = Field(gt=0)
    classes: tuple[ClassLabel, ...]
    forgotten: tuple[ClassLabel, ...] = ()
    input: InputSpec | None
    head: str
    weights_sha256: str
    graph_sha256: str | None = None
    unhot_version: str


class Environment(Stored):
    """Where something was computed; no names of machines, users or folders."""

    unhot: str
    python: str
    torch: str
    torchvision: str
    platform: str
    processor: str
    cpu_threads: int
    device: str

    @classmethod
    def here(cls, device: str = "cpu", threads: int | None = None) -> Environment:
        """Describe this process; reads package metadata, so torch need not be imported."""
        return cls(
            unhot=version("unhot"),
            python=".".join(map(str, sys.version_info[:3])),
            torch=version("torch"),
            torchvision=version("torchvision"),
            platform=f"{platform.system()} {platform.machine()}",
            processor=_processor(),
            cpu_threads=threads or os.cpu_count() or 1,
            device=device,
        )


class Cost(Stored):
    """What a run took.

    Attributes:
        seconds: Wall time of the algorithm itself.
        peak_memory_bytes: Highest resident memory of the process (CPU) or allocated memory of the device.
        steps: Optimiser steps.
    """

    seconds: float
    peak_memory_bytes: int
    steps: int


class TrainRecord(Record):
    """``record.json`` of a trained model."""

    kind: Literal["train"] = "train"
    dataset: str
    arch: str
    arch_options: dict[str, JsonValue]
    excluded: tuple[ClassLabel, ...]
    settings: dict[str, JsonValue]
    seed: int
    train_images: int
    test_accuracy: float | None
    cost: Cost
    weights_sha256: str
    environment: Environment


class GuardInfo(Record):
    """What the header of a guard file says.

    Attributes:
        model_sha256: Of the weights and buffers of the model that it was collected from.
        classes: Those that it describes.
        counts: Images of each.
        layers: Weight layers whose inputs are described by their second moment, in the order they are called.
        split_points: For those nearest the head the module before it whose input is described, and decides all that
            follows.
        origin: Where the images came from, in words.
    """

    kind: Literal["guard"] = "guard"
    model_sha256: str
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    counts: tuple[Annotated[int, Field(gt=0)], ...]
    layers: tuple[str, ...]
    split_points: dict[str, str]
    origin: str

    @model_validator(mode="after")
    def _one_for_each_class(self) -> Self:
        if len(self.counts) != len(self.classes) or len({c.index for c in self.classes}) < len(self.classes):
            raise ValueError("each class needs one count and must be named once")
        return self


class SamplesInfo(Stored):
    """The images that a method was given.

    Attributes:
        origin: Where they came from, in words ("fashion-mnist, train split").
        count: How many of each class, in the order of the record's classes.
        indices: Positions in the data set or names of the files, where known.
        sha256: Of each image's pixels, in order.
    """

    origin: str
    count: tuple[int, ...]
    indices: tuple[int | str, ...] = ()
    sha256: tuple[str, ...]


class ForgetRecord(Record):
    """``record.json`` of an unlearned model: enough to repeat the run and to check that it is the one.

    Attributes:
        digest: Of the method, its hyperparameters, the seed, the model, the samples and the guard: what determines the
            result.
        uses: What it could read.
        guard_sha256: Of the stored statistics that it was given; None if it was given none.
        notes: What the method measured on its way, all from data that it may read.
    """

    kind: Literal["forget"] = "forget"
    digest: str
    method: str
    hyperparameters: dict[str, JsonValue]
    uses: tuple[str, ...]
    classes: tuple[ClassLabel, ...]
    samples: SamplesInfo
    guard_sha256: str | None = None
    seed: int
    model_sha256: str
    weights_sha256: str
    stop_reason: str
    notes: dict[str, JsonValue]
    cost: Cost
    environment: Environment


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
    """

    original_sha256: str
    unlearned_sha256: str
    retrained_sha256: tuple[str, ...] = ()
    data: str
    data_sha256: dict[str, str]
    images: dict[str, int]
    given: dict[str, int] = {}


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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
