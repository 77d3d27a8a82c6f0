"""``record.json`` of a trained model."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from unhot.records.base import Record
from unhot.records.environment import Cost, Environment
from unhot.records.model import ClassLabel, InputSpec


class TrainRecord(Record):
    """``record.json`` of a trained model.

    Attributes:
        dataset: The name of the data set.
        data_sha256: SHA-256 of its content; None in older records.
        input: How its images became inputs; None in older records.
        test_accuracy: Accuracy on the test images of the classes trained on; None if there are none. In older
            records those of ``excluded`` are counted too, as wrong.
        fresh: The modules that were drawn anew, if it is the original with a fresh last stage; else empty.
    """

    kind: Literal["train"] = "train"
    dataset: str
    data_sha256: str | None = None
    input: InputSpec | None = None
    arch: str
    arch_options: dict[str, JsonValue]
    excluded: tuple[ClassLabel, ...]
    settings: dict[str, JsonValue]
    seed: int
    train_images: int
    test_accuracy: float | None
    fresh: tuple[str, ...] = ()
    cost: Cost
    weights_sha256: str
    environment: Environment
