"""Inert objects in the place of what a file of weights holds beside them: settings, paths, numbers of other libraries.

Programs keep their settings with the weights, as Lightning and timm do. torch's reader of weights refuses a file with
an object of a class that it does not know. Here it is given a class that does nothing in the place of each such class,
so that no code of the file, of its libraries or of the user's packages is imported or run.
"""

from __future__ import annotations

import sys
from typing import IO, Any

from torch.serialization import get_unsafe_globals_in_checkpoint

# modules of Python's own whose objects hold data; a file that names anything else of Python's own is refused
DATA = ("argparse", "collections", "datetime", "decimal", "enum", "fractions", "functools", "pathlib", "types", "uuid")
BUILTINS = ("bool", "complex", "dict", "float", "frozenset", "int", "list", "object", "set", "slice", "str", "tuple")


class _Placeholder:
    """Takes whatever an object is made of, and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _PlaceholderDict:
    """Becomes a dictionary, whose items are kept: there may be weights among them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return {}


class _PlaceholderList:
    """Becomes a list."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def placeholders(file: IO[bytes]) -> list[Any]:
    """Return a class that does nothing for each class that a file names, in the form of ``safe_globals``."""
    try:
        file.seek(0)
        names = get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an old file, or a damaged one, which is reported when it is read
        return []
    return [(_class_for(name), name) for name in names if _holds_data(name)]


def is_placeholder(loaded: Any) -> bool:
    """Return whether what was read is an object of a class that is not known, such as a whole net."""
    return isinstance(loaded, _Placeholder)


def _holds_data(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    top = module.partition(".")[0]
    if top == "builtins":
        return kind in BUILTINS
    return top in DATA or top not in sys.stdlib_module_names


def _class_for(name: str) -> type:
    """Return a new class for each name: torch finds the name by the class."""
    kind = name.lower()
    base = _PlaceholderDict if "dict" in kind else _PlaceholderList if "list" in kind else _Placeholder
    return type(name.rpartition(".")[2], (base,), {})
