"""The TOML file of deletion requests, and ``request.json``, which says with what values one was begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from unhot.records.base import Record, Sha256, Stored, check_once
from unhot.records.choices import Holder, Interpolation
from unhot.records.deletion import Request

Shots = Annotated[int, Field(ge=1)]
ClassName = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]


def _listed(value: object) -> object:
    """Take one ``[request]`` as a list of one, and refuse an empty list."""
    if value in ([], ()):
        raise ValueError("there is none. Write a [[request]]")
    return [value] if isinstance(value, dict) else value


class GivenModel(Stored):
    """``model``: a path, or a table ``[model]`` with what options of the command line say of a model, by their names.

    Attributes:
        path: A bundle, a folder of another library, or a weights file.
        arch: Architecture of a weights file; code that it names is run.
        arch_option: Keyword arguments of the architecture.
        image_size: Side of the square inputs in pixels, cropped at the centre.
        resize: Size before cropping: the shorter side, or ``"HEIGHTxWIDTH"``.
        interpolation: Filter for resizing.
        mean: What is subtracted from pixels of 0..1: one number, or one for each channel.
        std: What they are divided by, likewise.
        head: Dotted name of the final linear layer.
        output: Key or position of the logits.
        classes: File of class names, one for each output.
        key: Key of the weights in a file that holds other things too.
        prefix: Prefix of the names of weights in a file.
        trust_pickle: Whether a weights file may run code while it is loaded.
    """

    path: Path
    arch: str | None = None
    arch_option: dict[str, JsonValue] = Field(default_factory=dict)
    image_size: int | None = None
    resize: int | str | None = None
    interpolation: Interpolation | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    head: str | None = None
    output: str | None = None
    classes: Path | None = None
    key: str | None = None
    prefix: str | None = None
    trust_pickle: bool = False


class Asked(Request):
    """One ``[[request]]``: what is to be recorded of it, and how it is to be carried out.

    Attributes:
        classes: The classes to forget, by name or index.
        samples: Images of them: a path, or a named data set.
        given: Labels of ``label_map`` of which there are samples, if there are none of others.
        shots: Images of each class, as for ``unhot forget``.
        seed: The seed of the draw, of the method and of the audit.
        method: The method; the usual one if None.
        options: Hyperparameters of the method.
        retain: Images of other classes, for methods that read them.
        guard: What ``unhot guard collect`` wrote, for methods that read it.
        retrained: Models that were trained without the classes, for the audit.
        require: Bounds on the audit, as ``--require`` takes them; the request is not certified if one is not met.
        force: Go on if fewer than half of the samples are classified as the class.
    """

    classes: tuple[ClassName, ...] = Field(min_length=1)
    samples: str
    given: tuple[str, ...] = ()
    shots: Shots | None = None
    seed: int = Field(default=0, ge=0)
    method: str | None = None
    options: dict[str, JsonValue] = Field(default_factory=dict)
    retain: str | None = None
    guard: Path | None = None
    retrained: tuple[Path, ...] = ()
    require: tuple[str, ...] = ()
    force: bool = False

    @property
    def request(self) -> Request:
        """What is recorded of it."""
        return Request.model_validate({name: getattr(self, name) for name in Request.model_fields})


class Shared(Stored):
    """What all requests of a file share.

    Attributes:
        data: Test images for the audits: a path, or a named data set.
        quick: Whether the audits leave out the attacks that train or optimise.
        holder: Whose verdict is the headline.
        label_map: JSON file that groups labels, as for ``unhot forget``.
    """

    data: str
    label_map: Path | None = None
    quick: bool = False
    holder: Holder = "features"


class RequestFile(Shared):
    """The whole file; paths are relative to the working directory, as on the command line.

    Attributes:
        model: The model that the first request begins with.
        key: The private key that the records are signed with.
        out: The folder that gets a folder for each request, named by its id.
        request: The requests, in order: each begins with the model that the one before it left.
    """

    schema_: Literal[1] = Field(alias="schema")
    model: Annotated[GivenModel, BeforeValidator(lambda v: {"path": v} if isinstance(v, str) else v)]
    key: Path
    out: Path
    request: Annotated[tuple[Asked, ...], BeforeValidator(_listed)]

    @model_validator(mode="after")
    def _every_request_once(self) -> Self:
        check_once("id", (asked.id.casefold() for asked in self.request))
        check_once("class", (name for asked in self.request for name in asked.classes))
        return self


class Begun(Record):
    """``request.json`` in the folder of a request: the values that what lies beside it was made with.

    Attributes:
        model_sha256: Digest of the weights that the request begins with.
        model_options: What else was said of the model, as options of the command line.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["request"] = "request"
    asked: Asked
    shared: Shared
    model_sha256: Sha256
    model_options: tuple[str, ...] = ()
