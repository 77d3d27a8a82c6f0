"""What a run leaves for people: ``results.json``, ``results.csv``, ``tables.md`` and pictures."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import get_args

from unhot.bench import tables
from unhot.bench.grid import Grid
from unhot.bench.store import Store
from unhot.bench.tables import Setting, grouped, heads, of_row
from unhot.escaping import csv_cell, line, markdown
from unhot.files import write_atomic
from unhot.methods import QUICK, REFERENCES
from unhot.records.bench import Track
from unhot.records.choices import Holder
from unhot.records.environment import Environment
from unhot.records.results import CellRow, Results, TimingRow
from unhot.shared_state import SHARED_STATE

FEW = 50  # images of a class; with more, a method is in the track of all forget data


def track(method: str, uses: tuple[str, ...], shots: int | None) -> Track:
    """Return which methods one may be compared with: those that read as much."""
    if method in REFERENCES:
        return "reference"
    if "retain" in uses:
        return "retained data"
    if "guard" in uses:
        return "stored statistics"
    return "few samples" if shots is not None and shots <= FEW else "all forget data"


def collect(grid: Grid, store: Store) -> Results:
    """Read what is done of a grid."""
    rows, timings = list[CellRow](), list[TimingRow]()
    environments: dict[Environment, None] = {}
    for task in grid.cells:
        cell = task.spec
        if (record := store.record(cell)) is not None:
            rows.append(CellRow.of(record, track(cell.method, record.uses, cell.shots), task.options))
            environments[record.environment] = None
        elif (failure := store.failure(cell)) is not None:
            rows.append(CellRow.of_failure(failure, cell, track(cell.method, failure.uses, cell.shots)))
        if (taken := store.timing(cell)) is not None:
            timings.append(TimingRow.of(taken, task.options))
    return Results(name=grid.name, rows=tuple(rows), timings=tuple(timings), environments=tuple(environments))


def write_all(results: Results, out: Path) -> list[Path]:
    """Write everything; return the files."""
    files = {"results.csv": _csv(results).encode(), "tables.md": _markdown(results).encode()}
    files |= {f"{name}.svg": svg for name, svg in pictures(results).items()}
    results.write(out / "results.json")
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in ("results.json", *files)]


def pictures(results: Results) -> dict[str, bytes]:
    """Draw measures over the number of images, where several numbers were tried."""
    done = (r for r in results.rows if r.error is None and r.shots is not None and not r.in_sequence)
    return {
        re.sub(r"[^\w.-]+", "-", f"budget-{dataset}-{arch}"): _budget(grouped(rows, of_row))
        for (dataset, arch), rows in grouped(done, lambda r: (r.dataset, r.arch)).items()
        if len({r.shots for r in rows}) > 1
    }


def _budget(settings: dict[Setting, list[CellRow]]) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = ("retain_drop_masked", "worst_class_drop", "prototype_attack_accuracy")
    fig = Figure(figsize=(10, 3.2), layout="constrained")
    panels = fig.subplots(1, len(names))
    for axes, name, title in zip(panels, names, heads(*names), strict=True):
        for marker, (setting, rows) in zip("osD^vP*X" * len(settings), settings.items(), strict=False):
            points = defaultdict(list)
            for r in rows:
                if "unlearned" in r.values.get(name, {}):
                    points[r.shots].append(r.values[name]["unlearned"])
            x = sorted(s for s in points if s is not None)
            label = line(setting.title).replace("$", r"\$")  # a dollar is no mathematics
            axes.plot(x, [fmean(points[s]) for s in x], marker=marker, label=label)
        axes.set(xscale="log", xlabel="images of the class", title=title)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    buffer = io.BytesIO()
    with SHARED_STATE, rc_context({"svg.hashsalt": "unhot"}):  # the same picture from the same results
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _csv(results: Results) -> str:
    """One row a cell; a column for each measure and subject."""
    columns = dict.fromkeys(
        f"{name}/{subject}" for r in results.rows for name in r.values for subject in r.values[name]
    )
    head = ["dataset", "arch", "model_seed", "classes", "shots", "seed", "method", "options", "track", "verdict"]
    head += [*(f"verdict.{holder}" for holder in get_args(Holder)), "steps", "seconds", "error"]
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow([csv_cell(name) for name in (*head, *columns)])
    for r in results.rows:
        values = {f"{name}/{subject}": v for name, found in r.values.items() for subject, v in found.items()}
        known = r.model_dump()
        known |= {f"verdict.{holder}": r.verdicts.get(holder) for holder in get_args(Holder)}
        known |= {"classes": " ".join(map(str, r.classes)), "options": of_row(r).options}
        cells = [*(known[h] for h in head), *(values.get(c) for c in columns)]
        lines.writerow(["" if cell is None else csv_cell(cell) for cell in cells])
    return buffer.getvalue()


def _markdown(results: Results) -> str:
    usual = [r for r in results.rows if not r.in_sequence]
    parts = [f"# {markdown(results.name)}\n"]
    if usual:
        parts += ["## Leaderboards\n", tables.leaderboard(results)]
    methods = {r.method for r in usual}
    if QUICK in methods and len(methods - REFERENCES.keys()) > 1:
        parts += [f"## Paired differences to {QUICK}\n", tables.paired(results, QUICK), ""]
    if len({r.shots for r in usual}) > 1:
        parts += ["## Number of images\n", tables.budget(results), ""]
    if len({len(r.classes) for r in usual}) > 1:
        parts += ["## Several classes at once\n", tables.at_once(results), ""]
    if len(usual) < len(results.rows):
        parts += ["## One request after another\n", tables.in_sequence(results), ""]
    if any(r.verdicts for r in results.rows):
        parts += ["## Verdicts for whoever holds the outputs, features or weights\n", tables.verdicts(results), ""]
    if failures := [r for r in results.rows if r.error is not None]:
        lines = [
            [of_row(r).title, f"{r.dataset}, {r.arch}, {r.classes}, draw {r.seed}", str(r.error)] for r in failures
        ]
        parts += ["## Failures\n", tables.grid(["method", "cell", "why"], lines), ""]
    return "\n".join(parts)
