"""The cells of a grid, the models that they need, and their records.

A cell, or a model to train, holds what determines its result, and nothing else; its digest is its identity.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, JsonValue

from unhot.records.audit import Measurement, StoredLabel
from unhot.records.base import Record, Stored, digest
from unhot.records.choices import Holder, Precision
from unhot.records.environment import Environment
from unhot.records.model import ClassLabel, InputSpec
from unhot.records.train import TrainRecord

Track = Literal["few samples", "all forget data", "stored statistics", "retained data", "reference"]


class TrainSpec(Stored):
    """A model to train.

    Attributes:
        dataset: The data set's name.
        data_sha256: SHA-256 of its content: another data set of the same name makes another model.
        input: How its images become inputs.
        precision: Precision of convolutions and products.
        settings: All fields of :class:`unhot.training.TrainSettings`.
        excluded: Positions of the classes that are left out of training.
        train_images: Number of images to train on.
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
        """Return the specification of a trained model."""
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
        """Its name in messages."""
        left_out = f" without {', '.join(map(str, self.excluded))}" if self.excluded else ""
        return f"{self.arch} on {self.dataset}{left_out}, seed {self.seed}"


class Cell(Stored):
    """A request to forget, and how it is measured.

    Attributes:
        original: The model that is to forget.
        retrained: The retrained models to compare with.
        classes: Positions of the classes to forget.
        in_sequence: Whether each class is a request of its own, to the model that the request before left.
        shots: Number of images of each class; None for all.
        seed: Seed of the draw and the method.
        hyperparameters: All hyperparameters of the method.
        retained: Number of retained images for a method that reads them; None for all.
        guarded: Whether the method gets statistics collected from the original's training images.
        audit: ``full`` includes the attacks that train or optimise.
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
        """Its name in messages."""
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
        digest: Digest of ``spec``.
        names: The forgotten classes.
        options: The hyperparameters that the grid sets; the others are defaults.
        uses: Data that the method reads.
        signals: Measures by which settings may be chosen with samples alone: the mean probability of the class on the
            samples, the mean cosine of their features before and after, and the divergence of the outputs on distorted
            copies of them, in nats.
        before_cut: Mean accuracy on forgotten test images, and cosine of their features with the original's, before the
            class is cut from the output.
        verdict: The label of the headline, which is that of the features.
        verdicts: The label for each holder; empty in records of older versions.
        sequence: Measures after each request of a sequence.
        seconds: Time of the method; other cells may have run at the same time, unlike in a timing record.
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
    verdicts: dict[Holder, StoredLabel] = Field(default_factory=dict, exclude_if=lambda known: not known)
    sequence: tuple[dict[str, float], ...] = ()
    stop_reason: str
    steps: int
    seconds: float
    peak_memory_bytes: int
    environment: Environment


class FailureRecord(Record):
    """``failure.json``: why a cell or a model has no result. The next run tries it again."""

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
        floor_seconds: Time of one forward and backward pass over the samples; median of three after a warm-up.
        forget_seconds: Time of the method; median of three after a warm-up.
        train_seconds: Training time of the original, from its record; None if that lacks it.
        load: Load average of the minute before: about 0 on a quiet machine.
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
