"""What the figures of a page share: their parts, the names on them, their size, and the key of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from unhot.escaping import line
from unhot.records.audit import AuditRecord, PlotData, Subject
from unhot.report.svg import FAINT, Drawing, look
from unhot.report.tables import SUBJECTS

T = TypeVar("T")

MODELS = 40  # in a picture
WIDTH = 4.6  # inches; a column of the page


@dataclass(frozen=True)
class Data:
    """The numbers of a picture."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Panel:
    """One drawing with the line above it."""

    name: str
    drawing: Drawing


@dataclass(frozen=True)
class Picture:
    """One or more drawings with one caption.

    Attributes:
        narrow: Three panels, or four, fit beside one another.
        half: The whole picture fits beside another.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...]
    data: Data | None = None
    narrow: bool = False
    half: bool = False


def curves(record: AuditRecord, name: str) -> list[PlotData]:
    """Return the curves of one picture, models in their order, and not more than can be told apart."""
    found = [c for c in record.curves if c.name == name]
    return sorted(found, key=lambda c: (SUBJECTS.index(c.subject), c.run))[:MODELS]


def label(curve: PlotData, among: Sequence[PlotData]) -> str:
    """Name a curve's model; retrained models are numbered where there are several."""
    several = sum(c.subject == curve.subject for c in among) > 1
    return f"{curve.subject} {curve.run + 1}" if several else curve.subject


def category_names(curve: PlotData) -> list[str]:
    """Return the names on the horizontal axis; those that are digits come back from JSON as numbers."""
    return [x if isinstance(x, str) else f"{x:g}" for x in curve.x]


def short(name: str, limit: int = 18) -> str:
    """Shorten a long name for an axis; its end, where names often differ, is kept."""
    end = limit // 2 - 1
    name = line(name)
    return name if len(name) <= limit else f"{name[: limit - end - 1]}…{name[-end:]}"


def joined(names: Sequence[str]) -> str:
    """Join names with commas and a last 'and'."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else "none"


def figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return an empty figure, sizes in inches."""
    fig = Figure((width, height), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    return fig, fig.add_subplot()


def legend(fig: Figure, subjects: Sequence[Subject], line: bool = True, columns: int = 4) -> None:
    """Put a key of the models above the axes."""
    handles = [Line2D([], [], label=s, **(look(s) if line else {**look(s), "linestyle": "none"})) for s in subjects]
    fig.legend(
        handles=handles, loc="outside upper left", ncols=columns, handlelength=2.4 if line else 1, columnspacing=1.2
    )


def thinned(items: Sequence[T], limit: int) -> Sequence[T]:
    """Return at most ``limit`` items, evenly by position, the first and the last among them."""
    if len(items) <= limit:
        return items
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def guide(axes: Axes, y: float, text: str) -> None:
    """Draw a thin horizontal line with its name at the right."""
    axes.axhline(y, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    axes.text(0.995, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=7.5, bbox=box)
