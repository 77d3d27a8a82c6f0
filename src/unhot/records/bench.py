"""What a bench has to do, and what it did: the cells of a grid, the models that they need, and their records.

A cell, or a model to train, is what determines its result, and nothing else; its digest is its identity.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, JsonValue

from unhot.records.audit import Measurement, StoredLabel
from unhot.records.base import Record, Stored, digest
from unhot.records.choices import Precision
from unhot.records.environment import Environment
from unhot.records.model import ClassLabel, InputSpec
from unhot.records.train import TrainRecord

Track = Literal["few samples", "all forget data", "stored statistics", "retained data", "reference"]


class TrainSpec(Stored):
    """A model to train.

    Attributes:
        dataset: The data set's name.
        data_sha256: Of its content: another data set of the same name is another model.
        input: How its images become inputs.
        precision: What convolutions and products are computed in.
        settings: Of :class:`unhot.training.TrainSettings`, all of them.
        excluded: Positions of the classes of which no image is seen.
        train_images: How many images are seen.
    """

    dataset: str
    data_sha256: str | None = None  # like the next two, missing in records of older versions
    input: InputSpec | None = None
    precision: Precision | None = None
    arch: str
    arch_options: dict[str, JsonValue]
    settings: dict[str, JsonValue]
    seed: int
    excluded: tuple[int, ...] = ()
    train_images: int

    @cached_property
    def digest(self) -> str:
        """Its identity."""
        return digest(["train", self.model_dump(mode="json")])

    @classmethod
    def of_record(cls, record: TrainRecord) -> TrainSpec:
        """Return what a model that is there was trained as."""
        return cls(
            dataset=record.dataset,
            data_sha256=record.data_sha256,
            input=record.input,
            precision=record.environment.precision,
            arch=record.arch,
            arch_options=record.arch_options,
            settings={k: v for k, v in record.settings.items() if k != "precision"},
            seed=record.seed,
            excluded=tuple(sorted(c.index for c in record.excluded)),
            train_images=record.train_images,
        )

    @property
    def title(self) -> str:
        """What to call it."""
        left_out = f" without {', '.join(map(str, self.excluded))}" if self.excluded else ""
        return f"{self.arch} on {self.dataset}{left_out}, seed {self.seed}"


class Cell(Stored):
    """A request to forget, and what is measured of it.

    Attributes:
        original: The model that is to forget.
        retrained: The references.
        classes: Positions of the classes to forget.
        in_sequence: One request after another, each class from the model that the one before left.
        shots: Images of each class; None for all that there are.
        seed: Of the draw and the method.
        hyperparameters: All of them.
        retained: How many retained images a method is given that reads such; None for all.
        guarded: Whether it is given statistics that were collected from the original's training images.
        audit: ``full`` with the attacks that train or optimise.
        unhot: The version of unhot.
    """

    original: TrainSpec
    retrained: tuple[TrainSpec, ...]
    classes: tuple[int, ...]
    in_sequence: bool = False
    shots: int | None
    seed: int
    method: str
    hyperparameters: dict[str, JsonValue]
    retained: int | None = None
    guarded: bool = Field(default=False, exclude_if=lambda guarded: not guarded)  # cells without have the digest of old
    audit: Literal["quick", "full"] = "quick"
    unhot: str

    @cached_property
    def digest(self) -> str:
        """Its identity."""
        return digest(["cell", self.model_dump(mode="json")])

    @property
    def title(self) -> str:
        """What to call it."""
        classes = (" > " if self.in_sequence else " + ").join(map(str, self.classes))
        return f"{self.method}: {classes} of {self.original.title}, {self.shots or 'all'} images, draw {self.seed}"

    @property
    def training(self) -> tuple[TrainSpec, ...]:
        """The models that must be there first."""
        return (self.original, *self.retrained)


Work = Cell | TrainSpec


class CellRecord(Record):
    """``record.json`` of a cell.

    Attributes:
        digest: Of ``spec``.
        names: Of the forgotten classes.
        options: What the grid set of the hyperparameters; the others are defaults.
        uses: What the method reads.
        signals: What a method that sees samples only may be selected by: the mean probability of the class on the
            samples, the mean cosine of their features before and after, and the divergence of the outputs on distorted
            copies of them, in nats.
        before_cut: Mean accuracy on forgotten test images, and cosine of their features with the original's, before the
            class is cut from the output.
        sequence: After each request of a sequence: what was lost so far.
        seconds: Of the method; other cells may have run beside it. Timing records are of a quiet machine.
    """

    kind: Literal["bench"] = "bench"
    digest: str
    spec: Cell
    names: tuple[ClassLabel, ...]
    options: dict[str, JsonValue]
    uses: tuple[str, ...]
    signals: dict[str, float]
    before_cut: dict[str, float]
    measurements: tuple[Measurement, ...]
    verdict: StoredLabel
    sequence: tuple[dict[str, float], ...] = ()
    stop_reason: str
    steps: int
    seconds: float
    peak_memory_bytes: int
    environment: Environment


class FailureRecord(Record):
    """``failure.json``: why a cell or a model has no result. It is tried again by the next run."""

    kind: Literal["failure"] = "failure"
    digest: str
    title: str
    spec: Work
    options: dict[str, JsonValue] = Field(default_factory=dict)
    uses: tuple[str, ...] = ()
    error: str
    traceback: str | None = None


class TimingRecord(Record):
    """``timing.json``: how long a method takes when nothing else runs.

    Attributes:
        cell: Digest of the cell that was timed.
        floor_seconds: One forward and backward pass over the samples; median of three after one that warms up.
        forget_seconds: The method; median of three after one that warms up.
        train_seconds: What training the original took, by its record; None if that says nothing.
        load: Average number of processes that ran in the minute before: about 0 when the machine was quiet.
    """

    kind: Literal["timing"] = "timing"
    cell: str
    spec: Cell
    floor_seconds: float
    forget_seconds: float
    steps: int
    train_seconds: float | None
    load: float
    environment: Environment
