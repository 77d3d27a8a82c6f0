"""Packages that only some kinds of files need."""

from __future__ import annotations

import importlib
from typing import Any

from unhot.errors import DataError


def needed(module: str, what: str, extra: str) -> Any:
    """Import a package when a file needs it.

    Args:
        module: The package.
        what: The kind of file, in words.
        extra: The extra of unhot with which it is installed.

    Raises:
        DataError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DataError(f"To read {what}, {package} is needed. Install it: pip install 'unhot[{extra}]'.") from error
