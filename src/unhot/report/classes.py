"""Pictures of single classes: how well each is recognised, and where images of the forgotten ones go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from matplotlib.colors import LinearSegmentedColormap

from unhot.records.audit import AuditRecord, ClassAccuracy, Split, Subject
from unhot.report.figures import (
    WIDTH,
    Data,
    Panel,
    Picture,
    category_names,
    curves,
    figure,
    joined,
    label,
    legend,
    short,
)
from unhot.report.svg import INK, Drawing, drawn, look
from unhot.report.tables import SUBJECTS

CLASSES = 20  # in a picture; more are left to the table
MOST_CLASSES = 60  # in a picture, where more than those are forgotten
TABLE_CLASSES = 200
HALF = 6  # models that fit a picture of half the page's width
SPLITS: tuple[Split, ...] = get_args(Split)
COMPARED: tuple[Subject, ...] = ("original", "unlearned", "retrained")
BLUES = LinearSegmentedColormap.from_list("unhot", ["#f7fafc", "#56B4E9", "#00456f"])


def per_class(record: AuditRecord) -> Picture | None:
    """Draw the accuracy of each class before and after, a panel for each split."""
    table = {(a.split, a.subject, a.label.index): a for a in record.per_class}
    splits = [s for s in SPLITS if any(key[0] == s for key in table)]
    if not splits:
        return None
    labels = {a.label.index: a.label.name for a in record.per_class}
    chosen = _most_changed(record, table, labels)
    panels = tuple(_accuracy_panel(record, table, chosen, labels, split) for split in splits)
    caption = (
        "Share of each class's images that are recognised, with 95 % intervals. Only the forgotten classes, marked "
        "and in bold, should move. The masked original is left out here: it differs from the original in the "
        "forgotten classes and the images that these had taken."
    )
    if len(labels) > len(chosen):
        caption += f" Drawn are the forgotten classes and those that changed most, {len(chosen)} of {len(labels)}."
    if len(record.inputs.retrained_sha256) > 1:
        caption += " Of the retrained models the first is shown."
    return Picture("Accuracy of each class", caption, panels, _accuracy_data(table, labels, splits))


Accuracies = dict[tuple[Split, Subject, int], ClassAccuracy]


def _most_changed(record: AuditRecord, table: Accuracies, labels: dict[int, str]) -> list[int]:
    def change(index: int) -> float:
        pairs = [(table.get((s, "original", index)), table.get((s, "unlearned", index))) for s in SPLITS]
        return max((abs(a.value - b.value) for a, b in pairs if a and b), default=0.0)

    forgotten = dict.fromkeys(c.index for c in record.classes if c.index in labels)
    others = sorted((i for i in labels if i not in forgotten), key=lambda i: (-change(i), i))
    return sorted([*forgotten, *others][: max(CLASSES, min(len(forgotten), MOST_CLASSES))])


def _accuracy_panel(
    record: AuditRecord, table: Accuracies, chosen: list[int], labels: dict[int, str], split: Split
) -> Panel:
    subjects = [s for s in COMPARED if any(k[:2] == (split, s) for k in table)]
    fig, axes = figure(0.75 + 0.3 * len(chosen))
    forgotten = {c.index for c in record.classes}
    offsets = dict(zip(subjects, (-0.25, 0.0, 0.25), strict=False))
    for row, index in enumerate(chosen):
        if row % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color="#f3f5f7", lw=0, zorder=0)
        for subject in subjects:
            if (a := table.get((split, subject, index))) is not None:
                style, y = look(subject), row + offsets[subject]
                axes.plot([a.low, a.high], [y, y], color=style["color"], linewidth=1, solid_capstyle="butt")
                axes.plot([a.value], [y], **{**style, "linestyle": "none", "clip_on": False})
    names = [("▸ " if i in forgotten else "") + short(labels[i]) for i in chosen]
    axes.set_yticks(range(len(chosen)), names)
    for text, index in zip(axes.get_yticklabels(), chosen, strict=True):
        text.set_fontweight("bold" if index in forgotten else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(chosen) - 0.5, -0.5), xlabel="accuracy", xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="x")
    legend(fig, subjects, line=False)
    description = (
        f"Points with intervals for {len(chosen)} classes and the models {joined(subjects)}; values in the table."
    )
    return Panel(f"{split} images", drawn(fig, f"Accuracy, {split} images. {description}"))


def _accuracy_data(table: Accuracies, labels: dict[int, str], splits: Sequence[Split]) -> Data:
    columns = [(sp, su) for sp in splits for su in SUBJECTS if any(k[:2] == (sp, su) for k in table)]
    rows = []
    for index in sorted(labels)[:TABLE_CLASSES]:
        found = [table.get((*column, index)) for column in columns]
        cells = [f"{a.value:.3f} (n {a.n})" if a else "–" for a in found]
        rows.append((labels[index], *cells))
    return Data(("class", *(f"{su}, {sp}" for sp, su in columns)), tuple(rows))


def confusion(record: AuditRecord) -> Picture | None:
    """Draw the mean probability of each class on images of the forgotten classes, a column for each model."""
    found = curves(record, "confusion")
    if not found:
        return None
    names = category_names(found[0])
    forgotten = {c.name for c in record.classes}
    weight = {i: max(c.y[i] for c in found) for i in range(len(names))}
    first = [i for i in weight if names[i] in forgotten]
    others = sorted((i for i in weight if names[i] not in forgotten), key=lambda i: (-weight[i], i))
    chosen = sorted([*first, *others][: max(CLASSES, min(len(first), MOST_CLASSES))])
    rows = [[c.y[i] for c in found] for i in chosen]
    texts = [("▸ " if names[i] in forgotten else "") + short(names[i]) for i in chosen]
    if len(chosen) < len(names):
        rows.append([max(0.0, sum(c.y) - sum(c.y[i] for i in chosen)) for c in found])
        texts.append(f"{len(names) - len(chosen)} others")
    svg = _heat_map(rows, texts, [label(c, found) for c in found])
    caption = (
        "Mean probability that each model gives to each class on test images of the forgotten classes. A model that "
        "never saw the class shares them out over its neighbours in its own way: the unlearned column should look "
        "like the retrained one, not only be empty where the class was."
    )
    data = Data(
        ("class", *(label(c, found) for c in found)),
        tuple((names[i], *(f"{c.y[i]:.4f}" for c in found)) for i in range(min(len(names), TABLE_CLASSES))),
    )
    title = "Where forgotten images go"
    return Picture(title, caption, (Panel("", svg),), data, half=len(found) <= HALF)


def _heat_map(rows: list[list[float]], texts: list[str], columns: list[str]) -> Drawing:
    fig, axes = figure(0.5 + 0.26 * len(rows), max(WIDTH, 0.15 + 0.075 * max(map(len, texts)) + 0.78 * len(columns)))
    axes.pcolormesh(rows, cmap=BLUES, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    for r, row in enumerate(rows):
        for c, value in enumerate(row):
            colour = "white" if value > 0.68 else INK
            axes.text(c + 0.5, r + 0.52, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8.5)
    axes.set_yticks([r + 0.5 for r in range(len(rows))], texts)
    for text in axes.get_yticklabels():
        text.set_fontweight("bold" if text.get_text().startswith("▸") else "normal")
    axes.set_xticks([c + 0.5 for c in range(len(columns))], columns)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.invert_yaxis()
    for side in axes.spines.values():
        side.set_visible(False)
    description = f"A table of {len(rows)} rows (classes) and {len(columns)} columns (models), darker is more."
    return drawn(fig, f"Probabilities on forgotten images. {description}")
