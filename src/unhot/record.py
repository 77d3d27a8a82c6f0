"""What unhot writes to disk: one pydantic model for each kind of JSON file, its digest and its schema version."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Hashable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from unhot.errors import InputError
from unhot.escaping import json_words
from unhot.files import write_atomic
from unhot.reading import parse_json, read_text

Precision = Literal["fp32", "bf16"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]

MOST_PIXELS = 8_192  # of the height and the width of inputs
MOST_OUTPUTS = 2**19
MOST_WIDTH = 65_536  # of a number among the options of an architecture,
MOST_REPEATS = 4_096  # and of one in a list


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
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        return json_words(text) + "\n"

    def write(self, path: Path) -> None:
        """Write the file in one step."""
        write_atomic(path, self.to_json().encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file and check it.

        Raises:
            InputError: The file is missing, not JSON, or not of this kind.
        """
        return cls.parse(read_text(path), str(path))

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read the text of a file and check it; ``where`` names it in errors.

        Raises:
            InputError: The text is not JSON, or not of this kind.
        """
        raw = parse_json(text, where)
        if isinstance(raw, dict):
            cls._check_version(raw.get("schema_version", cls.VERSION), where)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            at = ".".join(str(p) for p in first["loc"])[:200]
            raise InputError(f"{where} is not a valid {cls.__name__}: {at}: {first['msg']}.") from error

    @classmethod
    def _check_version(cls, version_read: object, where: str) -> None:
        if type(version_read) is not int or version_read < 1:
            raise InputError(
                f"{where} has a schema_version that is not a whole number from 1 on: {str(version_read)[:40]!r}. "
                "It was not written by unhot, or was changed since."
            )
        if version_read > cls.VERSION:
            raise InputError(f"{where} was written by a newer unhot. Update unhot to read it.")


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_once(what: str, keys: Iterable[Hashable]) -> None:
    """Refuse keys of which one comes twice.

    Raises:
        ValueError: With the first such key.
    """
    seen: set[Hashable] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the {what} {key} comes twice")
        seen.add(key)


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

    height: int = Field(gt=0, le=MOST_PIXELS)
    width: int = Field(gt=0, le=MOST_PIXELS)
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
    outputs: int = Field(gt=0, le=MOST_OUTPUTS)
    classes: tuple[ClassLabel, ...]
    forgotten: tuple[ClassLabel, ...] = ()
    input: InputSpec | None
    head: str
    weights_sha256: str
    graph_sha256: str | None = None
    unhot_version: str

    @model_validator(mode="after")
    def _every_class_once(self) -> Self:
        check_once("class", (c.index for c in self.classes))
        check_once("forgotten class", (c.index for c in self.forgotten))
        return self

    @model_validator(mode="after")
    def _options_within_bounds(self) -> Self:
        rest: list[tuple[JsonValue, int]] = [(value, MOST_WIDTH) for value in self.arch_options.values()]
        while rest:
            value, most = rest.pop()
            if isinstance(value, dict):
                rest += [(v, most) for v in value.values()]
            elif isinstance(value, list):
                rest += [(v, MOST_REPEATS) for v in value]
            elif isinstance(value, (int, float)) and abs(value) > most:
                raise ValueError(
                    f"arch_options has {str(value)[:40]}, and no architecture takes more than {most:,} there"
                )
        return self


class Environment(Stored):
    """Where something was computed; no names of machines, users or folders.

    Attributes:
        cpu_threads: Threads of torch: with another number sums are taken in another order.
        cpu_capability: The instructions that torch computes with on a CPU, such as AVX2; None in older records.
        precision: What convolutions and products were computed in; None in older records.
    """

    unhot: str
    python: str
    torch: str
    torchvision: str
    platform: str
    processor: str
    cpu_threads: int
    device: str
    cpu_capability: str | None = None
    precision: Precision | None = None

    @classmethod
    def here(
        cls,
        device: str = "cpu",
        threads: int | None = None,
        cpu_capability: str | None = None,
        precision: Precision | None = None,
    ) -> Environment:
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
            cpu_capability=cpu_capability,
            precision=precision,
        )


class Cost(Stored):
    """What a run took.

    Attributes:
        seconds: Wall time of the algorithm itself.
        peak_memory_bytes: Highest resident memory of the process (CPU) or allocated memory of the device.
        steps: Optimiser steps.
    """

    seconds: Seconds
    peak_memory_bytes: Count
    steps: Count


class TrainRecord(Record):
    """``record.json`` of a trained model.

    Attributes:
        dataset: The name of the data set.
        data_sha256: Of its content; None in older records.
        input: How its images became inputs; None in older records.
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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
