"""``graph.json``: a net as the list of operators that it calls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from unhot.records.base import Record, Stored

Size = Annotated[int, Field(gt=0, le=65_536)]
MOST_STEPS = 100_000


class Layer(Stored):
    """A layer that becomes a module of torch again, with the weights of its name.

    Attributes:
        kind: Its class in ``torch.nn``.
        options: Its keyword arguments that its weights do not determine.
    """

    kind: Literal["Linear", "Conv2d", "BatchNorm1d", "BatchNorm2d"]
    options: dict[str, JsonValue] = Field(default_factory=dict)


class Step(Stored):
    """A call. Step i gives value i + 1; value 0 is the input of the net.

    In arguments, ``{"value": i}`` is that value, ``{"weight": name}`` a parameter, buffer or constant, ``{"device":
    "input"}`` where the input is, and ``{"float": "inf"}`` a number that JSON lacks; ``{"dtype": name}``,
    ``{"layout": name}`` and ``{"memory_format": name}`` are constants of torch.

    Attributes:
        call: ``aten.NAME.OVERLOAD`` or ``operator.NAME``; empty if ``layer`` is called.
        layer: Dotted name of one of the graph's layers.
    """

    call: str = ""
    layer: str | None = None
    args: tuple[JsonValue, ...] = ()
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)


class Graph(Record):
    """``graph.json``: a net as the operators that it calls in eval mode, without its weights.

    Attributes:
        shape: (C, H, W) of the inputs that it was traced with.
        parameters: Names of the weights that are parameters; the others are buffers.
        tied: Second names of parameters, each with the first name.
        constants: Tensors that are not stored with the weights, as the base64 of a safetensors file.
        layers: The layers, by dotted name.
        steps: The calls, in order.
        output: Number of the value that is the logits.
    """

    shape: tuple[Size, Size, Size]
    parameters: tuple[str, ...]
    tied: dict[str, str] = Field(default_factory=dict)
    constants: str = ""
    layers: dict[str, Layer]
    steps: tuple[Step, ...] = Field(max_length=MOST_STEPS)
    output: int = Field(ge=0)
