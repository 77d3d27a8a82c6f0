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
from matplotlib.axes import Axes
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
PARTS = ("image", "first layers", "last stage", "features", "head", "outputs")
HELD = {  # by each holder: the first and the last part, and how the class is attacked
    "outputs": (5, 5, "recovery from probabilities"),
    "features": (3, 3, "recovery from features"),
    "weights": (1, 5, "recovery from any layer, and relearning"),
}
SHOWN = {
    "Sandal": {"nhle-cwm": "", "nhle-renew": "", "nhle-renew guard=20000": " with --guard"},
    "Bag": {"nhle-cwm": "", "nhle-renew retain=1000": " with --retain"},
}
RENEWED = r"$a\,W + \sqrt{1-a^2}\ \mathrm{std}(W)\,\epsilon$"
INK, CLASS = "#7d7d7d", "#d1495b"  # both are read on light and on dark


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
    return svg(fig)


def svg(fig: Figure, **about: Any) -> bytes:
    """Return a picture as SVG, the same bytes whenever it is drawn."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None}, **about)
    return buffer.getvalue()


def box(axes: Axes, x: float, y: float, text: str, color: str, **about: Any) -> None:
    """Write a text in a box."""
    frame = {"fc": "none", "ec": color, "boxstyle": "round"}
    axes.text(x, y, text, ha="center", va="center", color=color, bbox=frame, **about)


def arrow(axes: Axes, x: tuple[float, float], y: tuple[float, float], color: str) -> None:
    """Draw an arrow from the first place to the second."""
    axes.annotate("", (x[1], y[1]), (x[0], y[0]), arrowprops={"arrowstyle": "->", "color": color})


def held(axes: Axes) -> None:
    """Draw the parts of a net, and which of them each holder has."""
    axes.set(xlim=(-0.6, 5.6), ylim=(-3.4, 0.6))
    axes.axis("off")
    for x, part in enumerate(PARTS):
        box(axes, x, 0, part, INK)
        if x:
            arrow(axes, (x - 0.6, x - 0.4), (0, 0), INK)
    for y, (holder, (first, last, attack)) in enumerate(HELD.items(), 1):
        axes.plot([first - 0.4, last + 0.4], [-y, -y], color=CLASS, lw=3)
        axes.text(last + 0.4, -y - 0.1, f"{holder}: {attack}", ha="right", va="top", color=INK)


def judged(axes: Axes) -> None:
    """Draw what five images recover from features: masked and retrained, and models between, with their verdicts."""
    cells = read("deep-fashion-mnist")["cells"]
    for y, (name, runs) in enumerate(SHOWN.items()):
        mine = {c["run"]: c for c in cells if (c["class"], c["draw"]) == (name, 0)}
        found = {run: mine[run]["measures"]["recovery_5_shot"] for run in runs}
        ends = {kind: found["nhle-cwm"][kind] for kind in ("masked", "retrained")}
        axes.axhline(-y, color=INK, lw=0.8)
        for kind, x in ends.items():
            axes.plot(x, -y, "s" if kind == "masked" else "D", color=INK)
            axes.text(x, -y - 0.16, kind, ha="center", va="top", color=INK)
        for i, (run, given) in enumerate(runs.items()):
            x, top = found[run]["unlearned"], -y + 0.16 + 0.17 * (len(runs) - 1 - i)
            axes.plot([x, x], [-y, top], color=CLASS, lw=0.8)
            axes.plot(x, -y, "^", color=CLASS, ms=9)
            said = f"{run.split()[0]}{given}: {mine[run]['labels']['features']}"
            axes.text(x - 0.003, top, said, ha="right", va="center", color=CLASS)
        axes.text(0.43, -y - 0.16, name, va="top", color=INK, weight="bold")
    axes.set(
        xlim=(0.43, 1.03),
        ylim=(-1.5, 0.85),
        yticks=[],
        xlabel="share of the class recovered from features with five images",
    )
    axes.spines[["left", "right", "top"]].set_visible(False)


def audit() -> bytes:
    """Draw whose verdicts there are, and where models with a verdict lie."""
    with mpl.rc_context({"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "axes.edgecolor": INK}):
        fig = Figure(figsize=(9, 6.5), layout="constrained")
        top, bottom = fig.subplots(2, 1, height_ratios=(1, 1.3))
        held(top)
        judged(bottom)
        return svg(fig, transparent=True)


def renew() -> bytes:
    """Draw what nhle-renew trains, on what, and towards what."""
    with mpl.rc_context({"text.color": INK}):
        fig = Figure(figsize=(9, 4.4), layout="constrained")
        axes = fig.subplots()
        axes.set(xlim=(-0.8, 5.3), ylim=(-1.6, 1.6))
        axes.axis("off")
        for y, color, what in ((0.36, CLASS, "samples\nof the class"), (-0.36, INK, "stand-ins for\nother classes")):
            box(axes, -0.2, y, what, color, linespacing=1.5)
            for start, end in ((0.28, 0.72), (1.66, 2.0), (3.4, 3.7), (4.28, 4.64)):
                arrow(axes, (start, end), (y, y), color)
        for x, text, color in (
            (1.2, "first layers\n\nnot trained,\nrun once\n", INK),
            (2.7, f"last stage\n\nmade partly new:\n{RENEWED},\nthen trained", CLASS),
            (4.0, "head\n\nnot\ntrained\n", INK),
        ):
            box(axes, x, 0, text, color, fontsize=10, linespacing=1.5)
        axes.text(4.7, 0.36, "outputs", va="center", color=CLASS)
        axes.text(4.7, -0.36, "outputs", va="center", color=INK)
        for x, y, color, text in (
            (3.57, 1.0, CLASS, "features: spread like those\nof stand-ins"),
            (5.0, 1.0, CLASS, "as of the original,\nwithout the class,\nand surer"),
            (3.57, -1.0, INK, "features: those\nof the original"),
            (5.0, -1.0, INK, "as of the original,\nwithout the class"),
        ):
            axes.text(x, y, text, ha="center", va="bottom" if y > 0 else "top", color=color)
            arrow(axes, (x, x), (0.48 if y > 0 else -0.48, 0.95 * y), color)
        return svg(fig, transparent=True)


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "unhot"  # the same picture from the same records
    OUT.mkdir(exist_ok=True)
    drawn = {"audit": audit(), "renew": renew(), "cost-growth": cost_growth()} | pictures(results("budget"))
    drawn |= {f"guard-{name}": svg for name, svg in pictures(results("guard-budget")).items()}
    for name, svg in drawn.items():
        (OUT / f"{name}.svg").write_bytes(svg)
        print(f"written: docs/pictures/{name}.svg")


if __name__ == "__main__":
    main()
