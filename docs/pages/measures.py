"""The page of the measures: what each says, made of its declaration and of the docstring of what computes it."""

from __future__ import annotations

from pathlib import Path

from docstrings import prose

from unhot.evaluation import attacks, metrics
from unhot.evaluation.attacks import AttackEntry
from unhot.records.audit import AuditRecord, Subject
from unhot.records.measure import Group, Measure
from unhot.report.tables import SUBJECTS, value_text

MARKS: dict[Subject, str] = {
    "original": "M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0",
    "masked": "M-5,-5L5,5M-5,5L5,-5",
    "unlearned": "M0,-7L7,6L-7,6Z",
    "retrained": "M-5.5,-5.5h11v11h-11Z",
}
GROUPS: dict[Group, str] = {"Output": "What the model answers", "Features": "What the features hold"}
WIDTH, EDGE = 640, 14


def page(gallery: Path) -> str:
    """Return what `make docs` adds to the page.

    Args:
        gallery: The folder that gallery.py wrote.
    """
    record = AuditRecord.read(gallery / "hidden" / "audit.json")
    legend = ", ".join(f"{_icon(subject)} the {subject} model" for subject in SUBJECTS)
    whole = "[The whole audit](gallery/hidden/report.html) has its own page."
    text = [f"{whole} The marks are {legend}; the line is the range of the measure.\n"]
    for group, title in GROUPS.items():
        text.append(f"## {title}\n")
        for name, entry in metrics.catalogue.entries().items():
            if entry.measure.group == group:
                _, _, said = prose(metrics.catalogue.get(name)).partition("\n\n")  # its first line is the sentence
                text.append(f"### {entry.measure.title}\n\n{_measure(entry.measure, said, record)}")
    text.append("## What attacks recover\n")
    for name, attack in attacks.catalogue.entries().items():
        text.append(f"### Attack: {name}\n\n{_attack(name, attack)}")
        text += [f"#### {m.title}\n\n{_measure(m, '', record)}" for m in attack.measures]
    return "\n".join(text)


def _attack(name: str, entry: AttackEntry) -> str:
    slow = " `--quick` leaves it out." if entry.slow else ""
    return f"{prose(attacks.catalogue.get(name))}{slow}\n"


def _measure(measure: Measure, said: str, record: AuditRecord) -> str:
    """Return the paragraph of a measure and its picture."""
    parts = [f"`{measure.name}`: {measure.sentence}", f"Range: {measure.reading}."]
    if measure.decides is not None:
        what = "is a similarity with the original, and" if measure.decides.similarity else ""
        parts.append(f"It {what} takes part in the verdict on the {measure.decides.holder}.".replace("  ", " "))
    parts.append(f"Source: {measure.source}.")
    paragraphs = [" ".join(parts)]
    if said:
        paragraphs.append(said)
    return "\n\n".join([*paragraphs, _picture(measure, record)]) + "\n"


def _picture(measure: Measure, record: AuditRecord) -> str:
    """Draw the values of the models on the range of a measure; above them the values in words."""
    found = {s: m for s in SUBJECTS if (m := record.find(measure.name, s)) is not None and m.value is not None}
    if not found:
        return "No value in this audit.\n"
    ends = [v for m in found.values() for v in (m.value, m.low, m.high) if v is not None]
    low = min(ends) if measure.low is None else measure.low
    high = max(ends) if measure.high is None else measure.high
    if measure.low == -1:  # a difference: the range that occurs, around 0
        high = max(map(abs, ends)) or 1.0
        low = -high

    def at(value: float) -> float:
        return EDGE + (value - low) / ((high - low) or 1.0) * (WIDTH - 2 * EDGE)

    marks = []
    for subject, m in found.items():
        if m.low is not None and m.high is not None:
            marks.append(f'<path class="{subject}" d="M{at(m.low):.1f},20H{at(m.high):.1f}"/>')
    for subject, m in found.items():
        assert m.value is not None
        marks.append(f'<path class="{subject}" transform="translate({at(m.value):.1f},20)" d="{MARKS[subject]}"/>')
    words = "; ".join(f"{subject} {value_text(m)}" for subject, m in found.items())
    return (
        f'<div class="strip"><svg viewBox="0 0 {WIDTH} 40" role="img" aria-label="{words}">'
        f'<path class="range" d="M{EDGE},20H{WIDTH - EDGE}"/>{"".join(marks)}</svg>'
        f"<span>{low:.3g}</span><span>{high:.3g}</span></div>\n\n{words}\n"
    )


def _icon(subject: Subject) -> str:
    return f'<svg class="mark" viewBox="-9 -9 18 18"><path class="{subject}" d="{MARKS[subject]}"/></svg>'
