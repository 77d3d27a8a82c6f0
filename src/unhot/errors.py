"""Every error that unhot raises on purpose.

.. code-block:: text

    UnhotError                      the root: catch this
    ├── InputError (ValueError)     an input cannot be used; the command line exits with 2
    │   ├── UnknownNameError (LookupError)   no such class, method, data set, ...; suggests a similar one
    │   ├── OptionError             a hyperparameter or option is unknown or out of range
    │   │   └── TooLongError        a method cannot do enough of its work in the time that it may take
    │   ├── ModelError              the model does not fit; lists every reason
    │   ├── DataError               images or labels do not fit
    │   └── OutputError (OSError)   the place to write to is taken or full
    ├── UndeclaredReadError (RuntimeError)   a method read data that its ``uses`` does not name
    ├── MethodFailedError (RuntimeError)     a method ended in an unusable model
    └── ExportFailedError (RuntimeError)     what was exported does not do what the model does

Warnings are about inputs that can be used, but not as one would expect. ``warnings.simplefilter("error",
UnhotWarning)`` turns all of them into errors.

.. code-block:: text

    UnhotWarning (UserWarning)      the root
    ├── ModelWarning                about the model
    ├── DataWarning                 about the images, their labels or their classes
    └── SampleWarning               about the samples, or about classes that were not forgotten
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

Said = TypeVar("Said", "UnhotError", "UnhotWarning")


class UnhotError(Exception):
    """The root of everything that unhot raises on purpose.

    Attributes:
        command_line: The message at the command line, where an argument is written in another way there.
    """

    command_line: str | None = None


class InputError(UnhotError, ValueError):
    """An input cannot be used."""


class UnknownNameError(InputError, LookupError):
    """A name that is not known, with the nearest known one; ``also`` is a sentence on what else it is not."""

    def __init__(self, kind: str, name: object, known: Iterable[str], also: str = "") -> None:
        super().__init__(" ".join(filter(None, [f"Unknown {kind} {str(name)!r}.", also, nearest(str(name), known)])))


class OptionError(InputError):
    """A hyperparameter or an option is unknown or out of range."""


class TooLongError(OptionError):
    """A method cannot do enough of its work in the time that it may take."""


class ModelError(InputError):
    """The model does not fit."""


class DataError(InputError):
    """Images or labels do not fit."""


class OutputError(InputError, OSError):
    """The place to write to is taken, or full."""


class UndeclaredReadError(UnhotError, RuntimeError):
    """A method read data that its ``uses`` does not name."""


class MethodFailedError(UnhotError, RuntimeError):
    """A method ended in an unusable model."""


class ExportFailedError(UnhotError, RuntimeError):
    """What was exported, loaded again, does not do what the model does."""


class UnhotWarning(UserWarning):
    """The root of everything that unhot warns of.

    Attributes:
        command_line: The message at the command line, where an argument is written in another way there.
    """

    command_line: str | None = None


class ModelWarning(UnhotWarning):
    """The model can be used, but not as one would expect."""


class DataWarning(UnhotWarning):
    """The images can be used, but not as one would expect."""


class SampleWarning(UnhotWarning):
    """The samples can be used, but not as one would expect, or their classes were not forgotten."""


MOST_NAMES = 20  # that are listed where none is like the one that was given


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the known name that is most like another one, or all of them."""
    known = [str(k) for k in known]
    if not known:
        return "There are none."
    near = [] if name.isdigit() else difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {shortened(known, MOST_NAMES)}."


def spelled(said: Said, python: str, command_line: str) -> Said:
    """Give an error or a warning its message at the command line, where ``python`` is written as ``command_line``."""
    said.command_line = str(said).replace(python, command_line)
    return said


def warn(said: UnhotWarning | str, kind: type[UnhotWarning] | None = None) -> None:
    """Warn, and name the line outside of unhot from which it was called: there the reader can change something.

    Args:
        said: The warning, or its message.
        kind: The kind of warning of a message.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "unhot",
        "contextlib",
        "functools",
    ):
        frame, level = frame.f_back, level + 1
    warnings.warn(said, kind, stacklevel=level)


def shortened(items: Iterable[object], limit: int = 12) -> str:
    """Join the items with commas; after ``limit`` items only count the rest."""
    texts = [str(i) for i in items]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def counted(count: int, what: str) -> str:
    """Return a number of things in words: ``1 image``, ``2 images``."""
    return f"{count} {what}{'s' * (count != 1)}"


def brief(value: object, limit: int = 60) -> str:
    """Return the repr of a value, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def first_line(error: object, limit: int = 200) -> str:
    """Return the first line of an error of other code, cut to ``limit``, without its full stop."""
    return str(error).strip().partition("\n")[0][:limit].rstrip(".")


def invalid_values(error: ValidationError, known: Iterable[str] = ()) -> list[str]:
    """Return for each value that pydantic refused its place, what is wrong, and the value if it is short.

    Args:
        error: What pydantic raised.
        known: The names of the values that there are, one of which is offered for a name that is not known.
    """
    found = []
    for e in error.errors(include_url=False):
        at, given = ".".join(map(str, e["loc"]))[:200], e["input"]
        got = f". Got {repr(given)[:80]}" if isinstance(given, str | int | float | None) else ""
        if known and e["type"] == "extra_forbidden":
            found.append(f"{at!r}: unknown ({nearest(at, known).rstrip('.')})")
            continue
        said = e["msg"].removeprefix("Value error, ").replace("Input should", "It must")
        found.append(f"{at!r}: " * bool(at) + said + got)
    return found


def raise_all(kind: type[InputError], subject: str, problems: list[str]) -> None:
    """Raise one error that lists every problem; do nothing when there is none."""
    if len(problems) == 1:
        raise kind(f"{subject}: {problems[0]}")
    if problems:
        listed = "".join(f"\n  - {p}" for p in problems)
        raise kind(f"{subject}: {len(problems)} problems:{listed}")
