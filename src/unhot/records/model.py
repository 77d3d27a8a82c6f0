"""``bundle.json``, with classes and inputs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from unhot.records.base import Record, Stored, check_once
from unhot.records.choices import Interpolation

MOST_PIXELS = 8_192  # largest height and width of inputs
MOST_CHANNELS = 512
MOST_OUTPUTS = 2**19
MOST_EDITS = 10_000
MOST_WIDTH = 65_536  # largest number among the options of an architecture
MOST_REPEATS = 4_096  # largest number in a list among them


class InputSpec(Stored):
    """How an image becomes the input of a model.

    Attributes:
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        channels: 1 for grey, 3 for RGB; any other number for pictures that have as many.
        mean: Mean of each channel, subtracted after pixels are scaled to 0..1.
        std: Standard deviation of each channel, divided by after that.
        resize: Size of a picture before ``height`` by ``width`` pixels are cropped from its centre: an int is its
            shorter side, and the aspect ratio stays; a pair is its height and width. None is the input's own height
            and width, so that nothing is cropped and the aspect ratio is lost.
        interpolation: Interpolation of the resizing; antialiased, as by Pillow.
    """

    height: int = Field(gt=0, le=MOST_PIXELS)
    width: int = Field(gt=0, le=MOST_PIXELS)
    channels: int = Field(gt=0, le=MOST_CHANNELS)
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
        """Return whether both take the same tensors, even if they resize pictures differently."""
        return other is not None and (self.shape, self.mean, self.std) == (other.shape, other.mean, other.std)


class ClassLabel(Stored):
    """A class: its name, and its index in the model as first trained."""

    index: int = Field(ge=0)
    name: str


class HeadPart(Stored):
    """A layer of a net that became a part of the one linear head that unhot works on.

    Attributes:
        layer: Its dotted name in the net as it came.
        columns: Number of its inputs, which are as many columns of the head's weights.
        share: What its outputs are multiplied by before they are added to the logits.
        convolution: Whether it is a convolution of kernel 1.
    """

    layer: str
    columns: int = Field(gt=0, le=MOST_WIDTH)
    share: float
    convolution: bool = False


class Origin(Stored):
    """What a model was read from, so that it can be written in the same form again.

    Attributes:
        kind: ``hf`` is a folder of ``save_pretrained``, ``timm`` a folder of the hub of timm, ``weights`` a file of
            weights, ``module`` a net that was passed as an object.
        files: The JSON files of such a folder, by name.
        stripped: What every name in the file began with, and the net's names do not.
        output: Which part of the net's output is the logits: a key or a position; empty if it returns a tensor.
        heads: The layers that became the head; empty if it is a layer of the net.
    """

    kind: Literal["hf", "timm", "weights", "module"]
    files: dict[str, JsonValue] = Field(default_factory=dict)
    stripped: str = ""
    output: str = ""
    heads: tuple[HeadPart, ...] = Field(default=(), max_length=MOST_EDITS)

    @property
    def prefix(self) -> str:
        """What the names of the net's weights begin with in the bundle, and not in the net as it came."""
        return "net." if self.output or self.heads else ""


class BundleInfo(Record):
    """``bundle.json``: the description that is needed, beside the weights, to use a model.

    Attributes:
        arch: Name of the architecture, as for ``--arch``; empty for a net that was passed as an object.
        arch_options: Keyword arguments of the architecture.
        outputs: Number of outputs that the architecture is built with; excised rows are removed after that.
        classes: The class of each output, in order.
        head_edits: The edits of the head since then, in order; see :mod:`unhot.models.head_edits`.
        input: How images become inputs; None if the model takes tensors only.
        head: Dotted name of the final linear layer.
        weights_sha256: SHA-256 of ``model.safetensors``.
        graph_sha256: SHA-256 of ``graph.json``; None if there is none, and the net is built by ``arch``.
        origin: What the model was read from; None if unhot trained it.
        forgotten: The forgotten classes in a file of version 1; it is no longer written.
    """

    VERSION: ClassVar[int] = 2

    schema_version: int = 2
    arch: str
    arch_options: dict[str, JsonValue] = Field(default_factory=dict)
    outputs: int = Field(gt=0, le=MOST_OUTPUTS)
    classes: tuple[ClassLabel, ...]
    head_edits: tuple[dict[str, JsonValue], ...] = Field(default=(), max_length=MOST_EDITS)
    input: InputSpec | None
    head: str
    weights_sha256: str
    graph_sha256: str | None = None
    origin: Origin | None = None
    unhot_version: str
    forgotten: tuple[ClassLabel, ...] = Field(default=(), exclude=True)

    @model_validator(mode="after")
    def _every_class_once(self) -> Self:
        check_once("class", (c.index for c in self.classes))
        check_once("forgotten class", (c.index for c in self.forgotten))
        return self

    @model_validator(mode="after")
    def _of_one_version(self) -> Self:
        fields = self.model_fields_set & ({"head_edits"} if self.schema_version == 1 else {"forgotten"})
        if fields:
            raise ValueError(f"version {self.schema_version} has no {fields.pop()}")
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
