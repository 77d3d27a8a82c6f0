"""The ledger beside a model."""

from __future__ import annotations

from pathlib import Path

from unhot.reading import read_text
from unhot.records.ledger import LEDGER, Ledger


def read_ledger(folder: Path) -> Ledger:
    """Read the ledger of a bundle; one that has none has no lines.

    Raises:
        InputError: It was changed.
    """
    path = folder / LEDGER
    return Ledger.parse(read_text(path), str(path)) if path.exists() else Ledger()
