"""The picture of the features: one panel a model, the same axes, the forgotten classes marked by shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unhot.records.audit import AuditRecord, PlotData
from unhot.report.figures import Panel, Picture, curves, figure, label, short, thinned
from unhot.report.svg import LOOKS, drawn

POINTS = 350
WAYS = 12  # directions in which a name may be moved
MOVED = 0.03  # of the width of a panel; a name that is moved further gets a line to its place
NAMED = 12  # classes that get their name written beside them
COLOURS = ("#7fa7c9", "#a9b665", "#b79ac8", "#c9a26b", "#6fb3a8", "#9aa0a8")
WORDS = "Triangles are forgotten images, dots others; read the measures beside it."
Point = tuple[float, float]


def feature_map(record: AuditRecord) -> Picture | None:
    """Draw the test images' features on the two main axes of the original's."""
    found = curves(record, "map")
    if not found:
        return None
    forgotten = {c.name for c in record.classes}
    kept = _drawn(found[0].groups, forgotten)
    limits = _limits(found)
    panels = []
    for c in found:
        name = label(c, found)
        panels.append(Panel(name, drawn(_panel(c, kept, forgotten, limits), f"Feature map, {name}. {WORDS}")))
    caption = (
        "Features of test images on the two main axes of the original's features; retrained models are turned onto "
        "these as well as it can be done, and all panels have the same scale. Triangles are images of the forgotten "
        "classes, dots those of the others, with the name of a class at its middle. Two of many dimensions: what "
        "overlaps here may still be told apart."
    )
    if len(kept) < len(found[0].groups):
        caption += f" {len(kept)} of {len(found[0].groups):,} images are drawn."
    mapped, trained = sum(c.subject == "retrained" for c in found), len(record.inputs.retrained_sha256)
    if 0 < mapped < trained:
        caption += f" Of {trained} retrained models the first {f'{mapped} are' if mapped > 1 else 'is'} shown."
    return Picture("Feature maps", caption, tuple(panels), narrow=True)


def _drawn(groups: Sequence[str], forgotten: set[str]) -> list[int]:
    """Choose which points to draw: up to a third of them forgotten, evenly by position."""
    mine = [i for i, g in enumerate(groups) if g in forgotten]
    others = [i for i, g in enumerate(groups) if g not in forgotten]
    return sorted([*thinned(mine, POINTS // 3), *thinned(others, POINTS - POINTS // 3)])


def _limits(found: Sequence[PlotData]) -> tuple[Point, Point]:
    """Return one square window that holds all points of all models."""
    x = [float(v) for c in found for v in c.x]
    y = [v for c in found for v in c.y]
    middle = ((max(x) + min(x)) / 2, (max(y) + min(y)) / 2)
    least = 1e-9 * max(1.0, *map(abs, middle))  # of points that are one, too, axes need two ends
    half = max(max(x) - min(x), max(y) - min(y), least) / 2 * 1.06
    return (middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half)


def _panel(curve: PlotData, kept: list[int], forgotten: set[str], limits: tuple[Point, Point]) -> Figure:
    fig, axes = figure(3.1, 3.1)
    groups = list(dict.fromkeys(curve.groups))
    for k, group in enumerate(sorted(groups, key=lambda g: (g in forgotten, g))):
        chosen = [i for i in kept if curve.groups[i] == group]
        x, y = [float(curve.x[i]) for i in chosen], [curve.y[i] for i in chosen]
        if group in forgotten:
            style = LOOKS["unlearned"]
            axes.plot(x, y, "^", color=style.colour, markersize=4.2, markeredgecolor="white", markeredgewidth=0.4)
        else:
            axes.plot(x, y, "o", color=COLOURS[k % len(COLOURS)], markersize=2.8, markeredgewidth=0)
    axes.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(True)
    _name(axes, curve, forgotten, limits)
    return fig


def _name(axes: Axes, curve: PlotData, forgotten: set[str], limits: tuple[Point, Point]) -> None:
    """Write the names of classes at their middles, moved apart where they would overlap."""
    groups = sorted(set(curve.groups), key=lambda g: (g not in forgotten, g))
    if len(groups) > NAMED:
        groups = [g for g in groups if g in forgotten][:NAMED]
    span = limits[0][1] - limits[0][0]
    placed: list[tuple[float, float, float]] = []
    for group in groups:
        chosen = [i for i, g in enumerate(curve.groups) if g == group]
        x = sum(float(curve.x[i]) for i in chosen) / len(chosen)
        y = sum(curve.y[i] for i in chosen) / len(chosen)
        text = short(group, 12)
        wide = (0.026 * len(text) + 0.03) * span
        home, (x, y) = (x, y), _free(x, y, wide, placed, limits)
        placed.append((x, y, wide))
        if abs(x - home[0]) + abs(y - home[1]) > MOVED * span:
            axes.plot([home[0], x], [home[1], y], color="#52606d", linewidth=0.7)
        mine = group in forgotten
        axes.text(
            *(x, y, text),
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold" if mine else "normal",
            color="white" if mine else "#1f2933",
            bbox={
                "boxstyle": "round,pad=0.15",
                "facecolor": LOOKS["unlearned"].colour if mine else "white",
                "edgecolor": "none",
                "alpha": 0.95 if mine else 0.8,
            },
        )


def _free(
    x: float, y: float, wide: float, placed: list[tuple[float, float, float]], limits: tuple[Point, Point]
) -> Point:
    """Return the place nearest to a point at which a name of some width covers no other and stays in the window."""
    (left, right), (bottom, top) = limits
    span = right - left
    for ring in range(40):
        for turn in range(WAYS if ring else 1):
            angle = 2 * math.pi * (turn / WAYS + 0.25)
            a, b = x + ring * 0.015 * span * math.cos(angle), y + ring * 0.015 * span * math.sin(angle)
            inside = left + wide / 2 <= a <= right - wide / 2 and bottom + 0.04 * span <= b <= top - 0.04 * span
            if inside and all(abs(a - c) > (wide + w) / 2 or abs(b - d) > 0.07 * span for c, d, w in placed):
                return a, b
    return x, y
