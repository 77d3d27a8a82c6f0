"""Packages that are not needed by all: those of an extra, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from unhot.errors import InputError


def needed(extra: str, *names: str) -> tuple[ModuleType, ...]:
    """Import packages of an extra.

    Raises:
        InputError: One is not installed.
    """
    try:
        return tuple(importlib.import_module(name) for name in names)
    except ImportError as error:
        raise InputError(f"{error.name} is not installed. Install it with: pip install 'unhot[{extra}]'.") from error
