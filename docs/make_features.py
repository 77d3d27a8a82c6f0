"""Draw the picture of the features before and after forgetting, from the folder that unhot demo leaves.

unhot demo --out unhot-demo
python docs/make_features.py unhot-demo
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unhot.records.audit import AuditRecord, PlotData, Subject
from unhot.report.feature_map import COLOURS

OUT = Path(__file__).resolve().parent / "pictures" / "features.svg"
PANELS: tuple[tuple[str, str, Subject], ...] = (
    ("before", "audit-unlearned", "original"),
    ("hidden", "audit-unlearned", "unlearned"),
    ("forgotten", "audit-renewed", "unlearned"),
    ("retrained without it", "audit-unlearned", "retrained"),
)
MARGIN = 1.5  # around the forgotten class, in the units of the features
FORGOTTEN, INK = "#d1495b", "#7d7d7d"  # both are read on light and on dark


def points(folder: Path, audit: str, subject: Subject) -> tuple[PlotData, str]:
    """Return the features of the test images on two axes, and the name of the forgotten class."""
    record = AuditRecord.read(folder / audit / "audit.json")
    (found,) = (p for p in record.curves if (p.name, p.subject, p.run) == ("map", subject, 0))
    return found, record.classes[0].name


def panel(axes: Axes, title: str, found: PlotData, forgotten: str) -> None:
    """Draw one model: the forgotten class as red triangles, every other class as dots of a colour."""
    for k, group in enumerate(sorted(set(found.groups), key=lambda name: (name == forgotten, name))):
        mine = group == forgotten
        colour = FORGOTTEN if mine else COLOURS[k % len(COLOURS)]
        axes.scatter(*places(found, group), s=15 if mine else 9, c=colour, marker="^" if mine else "o", linewidths=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, color=INK, fontsize=11)
    for side in axes.spines.values():
        side.set_color(INK)


def places(found: PlotData, group: str) -> tuple[list[float], list[float]]:
    """Return where the images of a class are."""
    chosen = [i for i, name in enumerate(found.groups) if name == group]
    return [float(found.x[i]) for i in chosen], [found.y[i] for i in chosen]


def draw(folder: Path) -> bytes:
    """Return the picture as SVG: the part of the plane around the forgotten class, the same for all models."""
    fig = Figure(figsize=(11, 3), layout="constrained")
    found = [points(folder, audit, subject) for _, audit, subject in PANELS]
    for axes, (title, _, _), (curve, forgotten) in zip(fig.subplots(1, len(PANELS)), PANELS, found, strict=True):
        panel(axes, title, curve, forgotten)
        for values, limit in zip(
            zip(*(places(*f) for f in found), strict=True), (axes.set_xlim, axes.set_ylim), strict=True
        ):
            ends = [end for some in values for end in (min(some), max(some))]
            limit(min(ends) - MARGIN, max(ends) + MARGIN)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("demo", type=Path, help="the folder of unhot demo")
    mpl.rcParams["svg.hashsalt"] = "unhot"
    OUT.write_bytes(draw(args.parse_args().demo))


if __name__ == "__main__":
    main()
