"""Draw the pictures of docs/ from the committed records of benchmarks/records.

python docs/make_pictures.py
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from blocks.records import read, results
from matplotlib.figure import Figure

from unhot.bench.results import pictures

OUT = Path(__file__).resolve().parent / "pictures"
GROWING = {
    "samples": "images of the class",
    "classes": "classes of the model",
    "forgotten": "classes forgotten, of 100",
    "parameters": "parameters",
}
KINDS = {"forget": "o", "audit": "s"}


def size(cell: dict[str, Any]) -> int:
    """Return how much work a point of cost-growth.json stands for."""
    found: int = cell["parameters"] if cell["axis"] == "parameters" else cell["point"][cell["axis"]]
    return found


def labelled(what: str, axis: str, x: Sequence[float], y: Sequence[float]) -> str:
    """Say what a curve is and how it grows: the exponent of a power law, 1 being proportional.

    Small work is all overhead, so the lower half of an axis is left out; nets of different kinds are taken together.
    """
    first = 0 if axis == "parameters" else len(x) // 2
    slope = np.polyfit(np.log(x[first:]), np.log(y[first:]), 1)[0]
    return f"{what}, slope {slope:.2f}"


def cost_growth() -> bytes:
    """Draw seconds, their floor and peak memory over the size of the work, each with its slope."""
    cells = read("cost-growth")["cells"]
    fig = Figure(figsize=(13, 6), layout="constrained")
    panels = fig.subplots(2, len(GROWING), sharey="row")
    for column, (axis, title) in enumerate(GROWING.items()):
        for what, marker in KINDS.items():
            mine = [c for c in cells if (c["axis"], c["what"]) == (axis, what)]
            if not mine:
                continue
            x = [size(c) for c in mine]
            seconds, floor = ([c[name] for c in mine] for name in ("seconds", "floor_seconds"))
            memory = [c["peak_memory_bytes"] / 2**20 for c in mine]
            (line,) = panels[0, column].plot(x, seconds, marker, ls="-", label=labelled(what, axis, x, seconds))
            panels[0, column].plot(
                x, floor, ls=":", color=line.get_color(), label=labelled("its floor", axis, x, floor)
            )
            panels[1, column].plot(
                x, memory, marker, ls="-", color=line.get_color(), label=labelled(what, axis, x, memory)
            )
        panels[0, column].set(title=title, ylabel="seconds" if column == 0 else "")
        panels[1, column].set(xlabel=title, ylabel="peak memory, MiB" if column == 0 else "")
        for panel in panels[:, column]:
            panel.set(xscale="log", yscale="log")
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "unhot"  # the same picture from the same records
    OUT.mkdir(exist_ok=True)
    drawn = {"cost-growth": cost_growth()} | pictures(results("budget"))
    drawn |= {f"guard-{name}": svg for name, svg in pictures(results("guard-budget")).items()}
    for name, svg in drawn.items():
        (OUT / f"{name}.svg").write_bytes(svg)
        print(f"written: docs/pictures/{name}.svg")


if __name__ == "__main__":
    main()
