"""Tables of the records of benchmarks/deep.py: methods that forget in the features, beside retrained models."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from blocks.records import RECORDS
from unhot.bench import tables
from unhot.evaluation.verdict import HOLDERS

SUMMARISED = ("nhle-cwm", "nhle-renew", "nhle-renew minutes=60", "nhle-renew retain=1000")


def deep() -> str:
    """One row a cell of the records of benchmarks/deep.py: verdicts, cost, and what was recovered beside references."""
    rows = []
    for data, c in deep_cells():
        found = c["measures"]
        row = [data, c["class"], str(c["draw"]), c["run"], *(tables.short(c["labels"][h]) for h in HOLDERS)]
        row += [f"{found[n]['unlearned']:.{d}f}" for n, d in (("retain_drop_masked", 4), ("worst_class_drop", 3))]
        recovered = [found[f"recovery_{k}_shot"] for k in (1, 5, 20)]
        rows.append(
            [*row, *(" / ".join(f"{r[s]:.3f}" for r in recovered) for s in ("unlearned", "retrained", "masked"))]
        )
    heads = ["trained on", "class", "draw", "run", *HOLDERS, "retain drop, masked", "worst class drop"]
    heads += ["recovered from 1 / 5 / 20 images", "retrained", "masked"]
    return tables.grid(heads, rows, text=7)


def deep_met() -> str:
    """One row a set of nets and a run of benchmarks/deep.py: verdicts that were reached, means and worst cells."""
    rows = []
    for (data, run), group in tables.grouped(deep_cells(), lambda cell: (cell[0], cell[1]["run"])).items():
        cells = [c for _, c in group]
        over = [c["measures"]["recovery_5_shot"] for c in cells]
        gaps = [r["unlearned"] - r["retrained"] for r in over]
        drops = [c["measures"]["retain_drop_masked"]["unlearned"] for c in cells]
        row = [data, run, str(len(cells))]
        row += [_count(c["labels"]["features"].startswith(("at the level", "beyond")) for c in cells)]
        row += [_count(c["labels"]["weights"].startswith(("at the level", "beyond", "short")) for c in cells)]
        row += [f"{statistics.mean(gaps):+.3f} / {max(gaps):+.3f}"]
        row += [_deep_closed(cells, name) for name in ("knn_accuracy", "probe_accuracy")]
        row += [f"{statistics.mean(drops):.4f} / {max(drops):.4f}"]
        rows.append([*row, f"{max(c['measures']['worst_class_drop']['unlearned'] for c in cells):.3f}"])
    heads = ["trained on", "run", "cells", "features at the level or beyond", "weights no worse than short"]
    heads += ["recovered from 5 images, over retrained: mean / worst", "kNN gap closed", "probe gap closed"]
    heads += ["retain drop, masked: mean / worst", "worst class drop"]
    return tables.grid(heads, rows, text=2)


def deep_full() -> str:
    """One row a cell that was audited with everything: what only then is measured, for three models."""
    rows = []
    for data, c in deep_cells():
        found = c["measures"]
        if "unlearned" not in found["relearn_accuracy"]:
            continue
        row = [data.partition(",")[0], c["class"], c["run"], *(tables.short(c["labels"][h]) for h in HOLDERS)]
        for name, digits in (("recovery_all_images", 3), ("relearn_steps", 0), ("relearn_accuracy", 3)):
            row.append(" / ".join(f"{found[name][s]:.{digits}f}" for s in ("unlearned", "retrained", "masked")))
        rows.append(row)
    heads = ["trained on", "class", "run", *HOLDERS, "recovered from all images: unlearned / retrained / masked"]
    return tables.grid([*heads, "steps of relearning", "accuracy while relearning"], rows, text=6)


def deep_cells() -> list[tuple[str, dict[str, Any]]]:
    """Return the cells of the records of benchmarks/deep.py with the data that their nets were trained on."""
    contents = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("deep-*.json"))]
    cells = [
        (", ".join(filter(None, (r["dataset"], r.get("note"), c.get("note")))), c) for r in contents for c in r["cells"]
    ]
    return sorted(cells, key=lambda cell: (cell[0], cell[1]["run"], cell[1]["class"], cell[1]["draw"]))


def deep_verdicts() -> str:
    """One row a set of nets and a run of benchmarks/deep.py: how often which verdict was given to each holder."""
    return _verdicts(deep_cells())


def verdict_summary() -> str:
    """The rows of :func:`deep_verdicts` of the default method and of the one that forgets in the features."""
    return _verdicts(cell for cell in deep_cells() if cell[1]["run"] in SUMMARISED)


def _verdicts(cells: Iterable[tuple[str, dict[str, Any]]]) -> str:
    rows = []
    as_they_are = [cell for cell in cells if "," not in cell[0]]  # no earlier version, and a quick audit
    for (data, run), group in tables.grouped(as_they_are, lambda cell: (cell[0], cell[1]["run"])).items():
        counts = [tables.label_counts(c["labels"][h] for _, c in group) for h in HOLDERS]
        rows.append([data, run, str(len(group)), *counts])
    return tables.grid(["data", "run", "cells", *HOLDERS], rows, text=6)


def _deep_closed(cells: Sequence[dict[str, Any]], name: str) -> str:
    """Return how much of the gap between masked and retrained is closed, in the mean of the cells that have one."""
    found = [[c["measures"][name][s] for s in ("unlearned", "masked", "retrained")] for c in cells]
    closed = [(masked - own) / (masked - retrained) for own, masked, retrained in found if masked - retrained > 0.02]
    return f"{statistics.mean(closed):.0%}" if closed else "–"


def _count(met: Iterable[bool]) -> str:
    found = list(met)
    return f"{sum(found)} of {len(found)}"
