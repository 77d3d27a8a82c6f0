"""Reading small text files of unknown origin: bounded, strict, and with errors that name the file."""

from __future__ import annotations

import json
import math
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from unhot.errors import InputError

TEXT_BYTES = 64 * 2**20  # a record of an audit with thousands of classes takes a few of these
NESTING = 64  # records nest less than ten deep
INTEGER_BOUND = 2**64


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """Read a text file in UTF-8.

    Args:
        path: The file; a pipe, a device or a folder is refused.
        limit: Maximum number of bytes.

    Raises:
        InputError: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise InputError(f"{path} is not a regular file. Give a file.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        if isinstance(error, InputError):
            raise
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read: {why}. Check the path and its permissions.") from error
    if len(content) > limit:
        raise InputError(f"{path} is larger than {limit:,} bytes, which no such file is. Check the path.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}.") from error


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text.

    NaN, infinity, integers of more than 64 bits, duplicate keys, text that is not valid Unicode and nesting deeper than
    64 are refused: no file of unhot has them, and they would fail later, or mean different things to different readers.

    Args:
        text: The text.
        where: Name of the file in error messages.

    Raises:
        InputError: It is not JSON, or contains one of these.
    """
    with _refused(where, "JSON"):
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        _check_values(value)
    return value


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the tables of a TOML text; the same values are refused as by :func:`parse_json`.

    Args:
        text: The text.
        where: Name of the file in error messages.

    Raises:
        InputError: It is not TOML, or contains one of these.
    """
    with _refused(where, "TOML"):
        value = tomllib.loads(text)
        _check_values(value)
    return value


@contextmanager
def _refused(where: str, form: str) -> Iterator[None]:
    """Turn errors of a parser, and refused values, into errors that name the file."""
    try:
        yield
    except RecursionError:
        raise InputError(f"{where} is not valid {form}: it nests deeper than {NESTING} levels.") from None
    except ValueError as error:
        raise InputError(f"{where} is not valid {form}: {error}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} comes twice in one object")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a JSON number")


def _check_values(value: object) -> None:
    level: list[list[Any] | dict[str, Any]] = [[value]]
    for _ in range(NESTING + 1):
        below: list[Any] = []
        for item in level:
            below.extend(item)
            if isinstance(item, dict):
                below.extend(item.values())
        _check_scalars(below)
        level = [item for item in below if type(item) in (list, dict)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {NESTING} levels")


def _check_scalars(values: list[Any]) -> None:
    if any(not -INTEGER_BOUND < v < INTEGER_BOUND for v in values if type(v) is int):
        raise ValueError("it holds an integer of more than 64 bits")
    if any(not math.isfinite(v) for v in values if type(v) is float):
        raise ValueError("it holds a number that is not finite")
    try:
        "".join(v for v in values if type(v) is str).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds text that is not valid Unicode: {error.reason}") from error
