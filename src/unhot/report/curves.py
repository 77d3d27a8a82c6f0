"""Pictures that are curves: relearning, recovery from a few images, ROC, and the layers of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

from unhot.records.audit import AuditRecord, PlotData, Subject
from unhot.report.figures import (
    Data,
    Panel,
    Picture,
    category_names,
    curves,
    figure,
    guide,
    joined,
    label,
    legend,
    short,
    thinned,
)
from unhot.report.svg import FAINT, Drawing, drawn, look

ROC_POINTS = 120
HEIGHT = 3.1
NARROW = 3.1  # inches; a third of the page
SEEN = {"few-shot-outputs": "the outputs", "few-shot": "the features", "few-shot-layers": "any layer"}
LEAST = 1e-4  # the lowest share on a logarithmic axis; no split has many more images


def relearning(record: AuditRecord) -> Picture | None:
    """Draw how fast the class comes back, with 50 and 90 % of where the retrained model ends."""
    found = curves(record, "relearning")
    if not found:
        return None
    fig, axes = figure(HEIGHT)
    _plot(axes, found)
    ends = [c.y[-1] for c in found if c.subject == "retrained"]
    if ends:
        for share in (0.5, 0.9):
            guide(axes, share * sum(ends) / len(ends), f"{share:.0%}".replace("%", " %"))
    axes.set(xlabel="fine-tuning steps", ylabel="accuracy on forgotten classes", ylim=(-0.02, 1.02))
    axes.set_xlim(0, max(1.0, *(x for c in found for x in _numbers(c))) * (1.08 if ends else 1.0))
    legend(fig, _subjects(found))
    caption = "Accuracy on forgotten test images while the model is fine-tuned on a few images of the class."
    if ends:
        caption += " The dotted lines are 50 and 90 % of where retrained models end, on average."
        caption += " A curve to the left of theirs: the class was still in there."
    caption += _learned_from(record)
    drawing = drawn(fig, f"Relearning curves. Lines for {joined(_subjects(found))} over steps.")
    data = _table("steps", [f"{x:g}" for x in _numbers(found[0])], found)
    return Picture("Relearning", caption + _together(found), (Panel("", drawing),), data, half=True)


def few_shot(record: AuditRecord) -> Picture | None:
    """Draw what is recovered of the class over the number of its images: a panel for each part of the model."""
    parts = {what: found for name, what in SEEN.items() if (found := curves(record, name))}
    if not parts:
        return None
    several = len(parts) > 1
    panels = tuple(
        Panel(f"From {what}" if several else "", _few(what, found, several)) for what, found in parts.items()
    )
    tables = {what: _table("images", [f"{x:g}" for x in _numbers(found[0])], found) for what, found in parts.items()}
    first = next(iter(tables.values()))
    data = first
    if several:
        rows = ((f"{what}, {n}", *values) for what, table in tables.items() for n, *values in table.rows)
        data = Data(("from, images", *first.header[1:]), tuple(rows))
    caption = (
        "Share of forgotten test images that somebody recovers who has so many images of the class, and many of the "
        "other classes. The class is new to a retrained model. A curve above the retrained model's means that the "
        "model still knows the class."
    )
    for what, found in parts.items():
        if same := _together(found):
            caption += f" From {what}:{same[0]}{same[1].lower()}{same[2:]}" if several else same
    return Picture("Recovery from a few images", caption, panels, data, narrow=several, half=not several)


def _few(what: str, found: Sequence[PlotData], narrow: bool) -> Drawing:
    """Draw one panel; the number of images is on a logarithmic axis."""
    fig, axes = figure(HEIGHT, NARROW) if narrow else figure(HEIGHT)
    _plot(axes, found)
    counts = _numbers(found[0])
    axes.set(xscale="log", xlabel="images of the class (log)", ylabel="forgotten images recovered", ylim=(-0.02, 1.02))
    axes.xaxis.set_ticks(counts, [f"{x:g}" for x in counts])
    axes.xaxis.set_ticks([], minor=True)
    axes.grid()
    legend(fig, _subjects(found), columns=2 if narrow else 4)
    return drawn(fig, f"Recovery from {what}. Lines for {joined(_subjects(found))} over images of the class.")


def roc(record: AuditRecord) -> Picture | None:
    """Draw the ROC curves of membership inference on two logarithmic axes."""
    found = curves(record, "roc")
    smallest = [v for c in found for v in (*_numbers(c), *c.y) if v > 0]
    if not smallest:
        return None
    floor = min(0.1, max(LEAST, 10 ** math.floor(math.log10(min(smallest)))))
    fig, axes = figure(HEIGHT)
    axes.plot([floor, 1], [floor, 1], color=FAINT, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.text(floor**0.25, floor**0.25 * 0.45, "chance", fontsize=8, color="#52606d", ha="left", va="top")
    for c in found:
        points = [(max(x, floor), max(y, floor)) for x, y in zip(_numbers(c), c.y, strict=True)]
        x, y = zip(*_spaced(points), strict=True)
        axes.plot(x, y, **{**look(c.subject), "markersize": 4}, markevery=max(1, len(x) // 6))
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.02), ylim=(floor, 1.05))
    axes.set(xlabel="false alarms (log)", ylabel="members found (log)")
    ticks = [10.0**e for e in range(round(math.log10(floor)), 1)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)
    axes.grid()
    legend(fig, _subjects(found))
    caption = (
        "Telling forgotten images that were trained on from those that were not, by modified entropy. What matters is "
        f"the left edge: who is found with few false alarms. Shares below {floor:g} are drawn at the edge."
    )
    if record.scores is not None:
        counts = " and ".join(f"{n:,} {split}" for split, n in record.scores.images.items())
        caption += f" The scores of {counts} images are in scores.csv, beside audit.json."
    drawing = drawn(fig, f"ROC of membership inference. Lines for {joined(_subjects(found))}.")
    return Picture("Membership inference", caption + _together(found), (Panel("", drawing),), half=True)


def layers(record: AuditRecord) -> Picture | None:
    """Draw what a linear probe reads of the class at each layer."""
    found = curves(record, "layers")
    if not found:
        return None
    others = [label(c, found) for c in found if c.x != found[0].x]
    found = [c for c in found if c.x == found[0].x]
    names = category_names(found[0])
    fig, axes = figure(HEIGHT)
    for c in found:
        axes.plot(range(len(c.y)), c.y, clip_on=False, **look(c.subject))
    turned = sum(len(n) for n in names) > 40
    axes.set_xticks(range(len(names)), [short(n) for n in names])
    if turned:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")
    axes.set(ylim=(-0.02, 1.02), ylabel="probe accuracy on forgotten", xlabel="layer, from the input on")
    axes.grid()
    legend(fig, _subjects(found))
    caption = (
        "Share of forgotten test images that a linear probe recognises from each layer: which layer still knows the "
        "class? The masked original has the features of the original."
    )
    if others:
        caption += f" Left out, since their layers are others: {joined(others)}."
    drawing = drawn(fig, f"Probe accuracy by layer. Lines for {joined(_subjects(found))} over layers.")
    data = _table("layer", names, found)
    return Picture("Layer by layer", caption + _together(found), (Panel("", drawing),), data, half=True)


def _plot(axes: Axes, found: Sequence[PlotData]) -> None:
    for c in found:
        axes.plot(_numbers(c), c.y, clip_on=False, **look(c.subject))


def _table(head: str, points: Sequence[str], found: Sequence[PlotData]) -> Data:
    """Return the curves as a table: a row for each point, a column for each curve."""
    rows = ((point, *(f"{c.y[i]:.3f}" for c in found)) for i, point in enumerate(points))
    return Data((head, *(label(c, found) for c in found)), tuple(rows))


def _learned_from(record: AuditRecord) -> str:
    """Say which images relearning learned from."""
    settings = record.attacks.get("relearning")
    if not settings:
        return ""
    shots, tries = settings.get("shots"), settings.get("tries")
    if "train" in record.inputs.images:
        return f" {shots} train images of each class, mean of {tries} draws."
    return (
        f" No train images were given, so one half of the class's test images, at most {shots} of each class, was "
        f"learned from, and only the other half was evaluated; mean of {tries} draws."
    )


def _numbers(curve: PlotData) -> list[float]:
    return [float(x) for x in curve.x]


def _subjects(found: Sequence[PlotData]) -> list[Subject]:
    return list(dict.fromkeys(c.subject for c in found))


def _together(found: Sequence[PlotData]) -> str:
    """Say which curves hide each other."""
    first: dict[tuple[float, ...], list[str]] = {}
    for c in found:
        first.setdefault(c.y, []).append(label(c, found))
    same = [joined(names) for names in first.values() if len(names) > 1]
    return f" The curves of {'; of '.join(same)} are the same." if same else ""


def _spaced(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Thin a curve evenly along its length in decades."""
    if len(points) <= ROC_POINTS:
        return points
    step = sum(_decades(a, b) for a, b in pairwise(points)) / ROC_POINTS
    kept = [points[0]]
    for p in points[1:-1]:
        if _decades(kept[-1], p) >= step:
            kept.append(p)
    return [*thinned(kept, ROC_POINTS), points[-1]]


def _decades(a: tuple[float, float], b: tuple[float, float]) -> float:
    return sum(abs(math.log10(v / w)) for v, w in zip(a, b, strict=True))
