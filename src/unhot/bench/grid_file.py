"""The TOML file of a grid: its tables, and what is unknown or invalid in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationError

from unhot.errors import InputError, UnknownNameError, invalid_values, raise_all
from unhot.reading import parse_toml, read_text
from unhot.records.base import Stored
from unhot.records.choices import Precision

Class = int | str
Request = Class | list[Class]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]

GRID_BYTES = 2**20  # TOML is parsed in Python, a million bytes a second
AXES = ("dataset", "arch", "class", "shots", "seed", "model_seed")
USUAL: dict[str, list[Any]] = {"shots": [16], "seed": [0], "model_seed": [0]}


def _request(value: object) -> object:
    """Check a request here, for one message instead of one for each member of the union."""
    members = value if isinstance(value, list) else [value]
    if not members or not all(isinstance(m, int | str) and not isinstance(m, bool) for m in members):
        raise ValueError(f"expected an index, a name, or a list of these. Got {value!r}")
    return value


class MethodEntry(Stored):
    """A ``[[method]]``.

    Attributes:
        options: Fixed hyperparameters.
        grid: Hyperparameters of which every value of a list is tried.
        guard: Whether it is given statistics of the original's training images.
    """

    name: str
    options: dict[str, JsonValue] = {}
    grid: dict[str, list[JsonValue]] = {}
    guard: bool = False

    def trials(self) -> Iterator[dict[str, JsonValue]]:
        """Yield the options of each trial."""
        for values in itertools.product(*self.grid.values()):
            yield self.options | dict(zip(self.grid, values, strict=True))


class Axes(Stored):
    """What a table may set: an axis is a value in ``[fixed]`` and a list in ``[grid]``."""

    dataset: list[str] = []
    arch: list[str] = []
    class_: list[Annotated[Request, BeforeValidator(_request)]] = Field(default=[], alias="class")
    shots: list[Count | Literal["all"]] = []
    seed: list[Seed] = []
    model_seed: list[Seed] = []

    def values(self) -> dict[str, list[Any]]:
        """Return the axes that are set."""
        return {n: v for n, v in self.model_dump(by_alias=True).items() if n in AXES and v}


class Fixed(Axes):
    """``[fixed]``.

    Attributes:
        arch_options: Keyword arguments of each architecture, by its name.
        train: Settings of training; what is left out suits data set and net.
        retrained: How many retrained references there are of each request.
        in_sequence: The classes of a list are forgotten one after another.
        precision: What the nets are trained in; the faster one on the machine that reads the grid if it is left out.
        retained: The number of retained images for methods that read such; all if it is left out.
        audit: ``full`` runs the attacks that train or optimise too.
    """

    arch_options: dict[str, dict[str, JsonValue]] = {}
    train: dict[str, JsonValue] = {}
    retrained: int = Field(default=1, ge=0, le=100)
    in_sequence: bool = False
    precision: Precision | None = None
    retained: Count | None = None
    audit: Literal["quick", "full"] = "quick"


class GridFile(Stored):
    """The whole file."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    fixed: Fixed = Fixed()
    grid: Axes = Axes()
    method: Annotated[list[MethodEntry], Field(min_length=1)]


TABLES: dict[str, type[Stored]] = {"fixed": Fixed, "grid": Axes, "method": MethodEntry}


def parse_grid(path: Path, problems: list[str]) -> tuple[GridFile, set[str]]:
    """Read the file without what is unknown or invalid in it, which is noted, so that the rest can be checked, too.

    Returns:
        The file, and the keys that were left out.

    Raises:
        InputError: It is no grid without what is left out.
    """
    raw = parse_toml(read_text(path, GRID_BYTES), str(path))
    fixed = raw.get("fixed")
    if isinstance(fixed, dict):  # a value is the axis of one value
        raw["fixed"] = {k: [v] if k in AXES else v for k, v in fixed.items()}
    try:
        return GridFile.model_validate(raw), set()
    except ValidationError as error:
        found = list(zip(error.errors(include_url=False), invalid_values(error), strict=True))
    said = [_unknown(e["loc"]) if e["type"] == "extra_forbidden" else f"{text}." for e, text in found]
    problems += dict.fromkeys(said)
    places = {_place(e["loc"], e["type"] == "missing") for e, _ in found}
    for *tables, key in sorted(places, reverse=True):  # the last of a list first
        holder: Any = raw
        for table in tables:
            holder = holder[table]
        if not isinstance(holder, dict) or key in holder:
            del holder[key]
    try:
        file = GridFile.model_validate(raw)
    except ValidationError:
        raise_all(InputError, str(path), problems)
        raise
    return file, set(AXES) if {("fixed",), ("grid",)} & places else {str(place[-1]) for place in places}


def _unknown(place: tuple[int | str, ...]) -> str:
    """Return what to say of a key that a table does not have."""
    table, *rest = place
    model = TABLES[str(table)] if rest else GridFile
    where = "the grid" if not rest else f"[[method]] {rest[0] + 1}" if isinstance(rest[0], int) else f"[{table}]"
    known = [field.alias or name for name, field in model.model_fields.items()]
    return str(UnknownNameError(f"key of {where}:", place[-1], known))


def _place(found: tuple[int | str, ...], missing: bool) -> tuple[int | str, ...]:
    """Return the key to leave out for an error: one of a table or of a ``[[method]]``, or all of that."""
    if found[0] == "method":
        return found[:2] if missing else found[:3]
    return found[:2]
