"""Stored and Record, the base classes of every JSON file: schema version, canonical text, digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unhot.errors import InputError, invalid_values
from unhot.escaping import json_words
from unhot.files import write_atomic
from unhot.reading import parse_json, read_text

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
            raise InputError(f"{where} is not a valid {cls.__name__}: {invalid_values(error)[0]}.") from error

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
    """Return the SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """Return the canonical text of a JSON value: sorted keys, no spaces, ASCII only, so that a value has one text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check_once(what: str, keys: Iterable[Hashable]) -> None:
    """Refuse keys that are not unique.

    Raises:
        ValueError: With the first key that comes twice.
    """
    seen: set[Hashable] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the {what} {key} comes twice")
        seen.add(key)
