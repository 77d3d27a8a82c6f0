"""Carrying out the requests of a file: what it says, and how far each of them is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ValidationError

from unhot.deletion.certify import complete
from unhot.deletion.verify import verify
from unhot.errors import InputError, OutputError, invalid_values, nearest, raise_all
from unhot.reading import parse_toml, read_text
from unhot.records.request import Asked, Begun, GivenModel, RequestFile, Shared

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

FILE_BYTES = 2**20  # TOML is parsed in Python, a million bytes a second
BEGUN = "request.json"
# the tables of a file, by the first key of a place in it, and where their keys stand
TABLES: dict[str, tuple[type[BaseModel], str]] = {
    "": (RequestFile, "above the first table"),
    "model": (GivenModel, "in [model]"),
    "request": (Asked, "in a [[request]]"),
}


class Place(NamedTuple):
    """The folder of a request; its parts appear one after another, each complete or not at all."""

    home: Path

    @property
    def model(self) -> Path:
        """The unlearned model."""
        return self.home / "model"

    @property
    def audit(self) -> Path:
        """Its audit."""
        return self.home / "audit"

    @property
    def record(self) -> Path:
        """The signed record; the request is finished when it is there."""
        return self.home / "record"


def read_requests(path: Path) -> RequestFile:
    """Read a file of requests.

    Raises:
        InputError: With everything that is unknown, missing or invalid in it.
    """
    raw = parse_toml(read_text(path, FILE_BYTES), str(path))
    try:
        file = RequestFile.model_validate(raw)
    except ValidationError as error:
        raise_all(InputError, str(path), [f"{said}." for said in _said(error)])
        raise
    late = [asked.id for asked in file.request if asked.received is not None and asked.received > date.today()]
    raise_all(InputError, str(path), [f"{name}: 'received' is after today." for name in late])
    return file


def place_in(out: Path, asked: Asked) -> Place:
    """Return the folder of a request, which is named by its id, and by no name that commands take as an option."""
    return Place(out / (re.sub(r"[^\w.-]+", "-", asked.id).lstrip(".-").rstrip(".") or "request"))


def begin(place: Place, asked: Asked, shared: Shared, model_sha256: str, model_options: Sequence[str] = ()) -> None:
    """Note with what values a request is carried out, or check that it was begun with them.

    Args:
        place: Its folder.
        asked: The request.
        shared: What all requests share.
        model_sha256: Digest of the weights that it begins with.
        model_options: What else is said of the model, as options of the command line.

    Raises:
        InputError: It was begun with other values.
        OutputError: The folder holds something else.
    """
    begun = Begun(
        asked=asked,
        shared=Shared.model_validate({name: getattr(shared, name) for name in Shared.model_fields}),
        model_sha256=model_sha256,
        model_options=tuple(model_options),
    )
    path = place.home / BEGUN
    if path.exists():
        if Begun.read(path) != begun:
            raise InputError(
                f"{asked.id} was begun with other values than it has now: compare {path}. Give it these again, or "
                f"remove {place.home}, and the folders of the requests after it, to begin anew."
            )
        return
    if place.home.exists() and any(not p.name.startswith(".") for p in place.home.iterdir()):  # a killed writer's are
        raise OutputError(f"{place.home} is not empty, and holds no request. Choose another 'out'.")
    place.home.mkdir(parents=True, exist_ok=True)
    begun.write(path)


def withdraw(place: Place) -> None:
    """Forget that a request was begun, if it made no model."""
    if not place.model.exists():
        (place.home / BEGUN).unlink(missing_ok=True)
        with suppress(OSError):  # a killed writer's files may be left
            place.home.rmdir()


def finished(place: Place, asked: Asked, signer: CryptoSigner) -> bool:
    """Return whether a request is certified; a ledger that lacks the line, as after a kill, gets it.

    Raises:
        InputError: What was certified does not hold, or was signed with another key.
    """
    if not place.record.exists():
        return False
    for model in (None, place.model):  # a record that does not hold itself gets no line
        found = verify(place.record, signer.public_key, model)
        if wrong := [c for c in found.checks if c.failed and c.name != "ledger"]:
            raise InputError(f"{asked.id} is certified, and does not hold: {wrong[0].name}: {wrong[0].found}")
    complete(place.record, place.model)
    return True


def _said(error: ValidationError) -> list[str]:
    """Return what is wrong, with the number of the request in place of the position in the list."""
    found = zip(error.errors(include_url=False), invalid_values(error), strict=True)
    said = [_unknown(e["loc"]) if e["type"] == "extra_forbidden" else text for e, text in found]
    return [re.sub(r"'request\.(\d+)", lambda m: f"request {int(m[1]) + 1}, '", s).replace("'.", "'") for s in said]


def _unknown(at: tuple[int | str, ...]) -> str:
    """Say that a key is unknown where it stands, and which one may be meant, or where it belongs."""
    table = str(at[0]) if len(at) > 1 else ""
    keys = {name: [field.alias or key for key, field in of.model_fields.items()] for name, (of, _) in TABLES.items()}
    own = keys.pop(table)
    others = {key: TABLES[name][1] for name, listed in keys.items() for key in listed}
    place, key = repr(".".join(map(str, at))), str(at[-1])
    if key in others:
        return f"{place}: unknown here (It belongs {others[key]})"
    near = next(iter(get_close_matches(key, [*own, *others], n=1)), None)
    if near in others and near not in own:
        return f"{place}: unknown (Did you mean {near!r}? It belongs {others[near]})"
    return f"{place}: unknown ({nearest(key, own).rstrip('.')})"
