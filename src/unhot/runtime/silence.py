"""Suppressing what other libraries print."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from unhot.shared_state import SHARED_STATE


@contextmanager
def silence() -> Iterator[None]:
    """Suppress warnings, log messages and progress bars in the block, and those of other threads meanwhile."""
    with SHARED_STATE, warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable()
        try:
            yield
        finally:
            logging.disable(disabled)
