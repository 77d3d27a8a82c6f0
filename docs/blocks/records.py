"""The committed records of benchmarks/records, and what several tables make of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from blocks import ROOT
from unhot.bench import tables
from unhot.records.results import Results, merged

RECORDS = ROOT / "benchmarks" / "records"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return content


def spread(values: Sequence[float | None]) -> str:
    return tables.spread([v for v in values if v is not None])


def results(names: str) -> Results:
    """Read the results of the grids whose records match."""
    return merged(sorted(RECORDS.glob(f"bench-{names}.json")))


def promised() -> Results:
    """Return the cells of NHLE-CWM on 16 images; of the grids for other questions the one of numbers of images."""
    found = merged([*sorted(RECORDS.glob("bench-promise-*.json")), RECORDS / "bench-budget.json"])
    return found.model_copy(update={"rows": tuple(r for r in found.rows if (r.method, r.shots) == ("nhle-cwm", 16))})


def share(was: float, now: float, goal: float) -> str:
    return f"{(was - now) / (was - goal):.0%}" if was - goal >= NO_GAP else "no gap"


NO_GAP = 0.02  # of accuracy between original and retrained, below which a share of it says nothing
