"""Records that have a line for each cell, so that a cell more is a line more in a diff."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unhot.files import write_atomic


def text(record: Mapping[str, Any]) -> str:
    """Return the text of a record: all else in the first line, then its ``cells``, a line each."""
    lines = ",\n ".join(json.dumps(cell) for cell in record["cells"])
    head = json.dumps({name: value for name, value in record.items() if name != "cells"})
    return f'{head[:-1]}, "cells": [\n {lines}\n]}}\n'


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in one step."""
    write_atomic(path, text(record).encode())
