"""matplotlib figures as inline SVG: the same bytes every time, no outside reference, readable without colour."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
from markupsafe import Markup, escape
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
    "font.family": "DejaVu Sans",
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


def inline(figure: Figure, key: str, title: str, description: str) -> Markup:
    """Return a figure as an ``<svg>`` element that can stand in a page beside others.

    Args:
        figure: Drawn within :func:`drawing`.
        key: Unique on the page; begins every id.
        title: What it is, for who does not see it.
        description: What it shows.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("xlink:href", "href")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", lambda tag: _tidied(tag[0]), text)
    used = set(re.findall(r"#([\w.-]+)", " ".join(re.findall(r'(?:url\(#[^)]+\)|href="#[^"]+")', text))))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{key}-", text)
    text = re.sub(r"<g>\s*</g>|<defs>\s*</defs>", "", text)
    text = re.sub(r">\s*\n\s*<", "><", text).strip()
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    named = (
        f'<svg class="plot" role="img" aria-labelledby="{key}-t {key}-d" viewBox="{box[1]}" '
        f'style="max-width:{float(box[1].split()[2]) * 1.5:.0f}px">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
    )
    return Markup(re.sub(r"<svg[^>]*>", lambda _: named, text, count=1))


def _tidied(tag: str) -> str:
    """Shorten the numbers of a tag, and leave the choice of font to the page."""
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag).replace("; font-family: 'DejaVu Sans'", "")
    return re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag)
