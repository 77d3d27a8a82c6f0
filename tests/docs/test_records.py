"""The committed records of benchmarks/: those of a line for each cell are written as they are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cell_lines

RECORDS = Path(__file__).resolve().parents[2] / "benchmarks" / "records"
KINDS = ("deep-*", "plain-nets-*", "verdict-noise-*", "partial-references-*")
FILES = [path for kind in KINDS for path in sorted(RECORDS.glob(f"{kind}.json"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_record_is_written_again_as_it_is(path: Path, tmp_path: Path) -> None:
    cell_lines.write(tmp_path / "record.json", json.loads(path.read_text()))
    assert (tmp_path / "record.json").read_bytes() == path.read_bytes()


def test_a_cell_has_a_line_wherever_it_stands_in_the_record() -> None:
    cells = [{"class": 1}, {"class": 2}]
    text = cell_lines.text({"cells": cells, "dataset": "digits"})
    assert text == '{"dataset": "digits", "cells": [\n {"class": 1},\n {"class": 2}\n]}\n'
    assert json.loads(text)["cells"] == cells
