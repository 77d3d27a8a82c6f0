"""matplotlib figures as SVG: the same bytes every time, no outside reference, readable without colour."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from unhot.records.audit import Subject
from unhot.shared_state import SHARED_STATE

INK, FAINT = "#1f2933", "#9aa5b1"


class Look(NamedTuple):
    """How a model is drawn: colour, marker and line differ, so that any one of them is enough."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]
    width: float
    filled: bool


class Drawing(NamedTuple):
    """A figure as an image: its ``data:`` address, what it shows in words, and its greatest width in pixels."""

    address: str
    alt: str
    width: int


LOOKS: dict[Subject, Look] = {  # Okabe and Ito's colours
    "original": Look("#4b5563", "o", "-", 1.4, False),
    "masked": Look("#0072B2", "s", (0, (4, 2)), 1.4, False),
    "unlearned": Look("#D55E00", "^", "-", 2.2, True),
    "retrained": Look("#007a5a", "D", (0, (5, 1.5, 1, 1.5)), 1.4, True),
}
RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unhot",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.unicode_minus": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.markersize": 5,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in this page's style, whatever the user's own settings are; they are as before afterwards."""
    with SHARED_STATE, mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")  # the browser has the font that matplotlib lacks
        mpl.rcdefaults()
        for name, value in RC.items():
            mpl.rcParams[name] = value
        yield


def look(subject: Subject) -> dict[str, Any]:
    """Return the keyword arguments of ``Axes.plot`` for a model."""
    style = LOOKS[subject]
    face = style.colour if style.filled else "white"
    return {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": style.line,
        "linewidth": style.width,
        "markerfacecolor": face,
        "markeredgecolor": style.colour,
    }


def drawn(figure: Figure, alt: str) -> Drawing:
    """Return a figure as a picture that needs nothing else.

    Args:
        figure: Drawn within :func:`drawing`.
        alt: What it shows, for who does not see it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    address = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Drawing(address, alt, round(108 * figure.get_figwidth()))
