"""Tables of the settings of nhle-cwm that were tried."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from blocks.records import read, spread
from unhot.bench import tables


def settings() -> str:
    """One row a setting, the others at their defaults, 16 images."""

    def name(cell: dict[str, Any]) -> list[str]:
        (key, value), *_ = cell["options"].items()
        return [key, f"{value:.4g}"]

    return trials(lambda c: "encoding" not in c["options"], name)


def trials(wanted: Callable[[dict[str, Any]], bool], name: Callable[[dict[str, Any]], list[str]]) -> str:
    record = read("ablation")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for cell in record["cells"]:
        if wanted(cell):
            groups[tuple(name(cell))].append(cell)
    reached = record["defaults"]["stop_at"]
    rows = []
    for key, cells in groups.items():
        limits = [c["options"].get("stop_at", reached) for c in cells]
        ended = sum(c["probability_left"] <= limit for c, limit in zip(cells, limits, strict=True))
        row = [*key, f"{ended} of {len(cells)}"]
        for quantity, digits in (("steps", 1), ("drift", 3), ("sample_feature_cosine", 3)):
            row.append(f"{statistics.mean(c[quantity] for c in cells):.{digits}f}")
        reported = ("retain_drop_masked", "worst_class_drop", "forget_accuracy_before_cut", "feature_cosine")
        rows.append(row + [spread([c[quantity] for c in cells]) for quantity in reported])
    seen = ["stop event reached", "steps", "drift", "sample cosine"]
    tested = ["retain drop, masked", "worst class drop", "forget accuracy before the cut", "feature cosine"]
    return tables.grid(["setting", "value or images", *seen, *tested], rows)
