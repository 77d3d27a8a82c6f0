"""The page of the verdicts: what each label says, with audits of the gallery that earned it."""

from __future__ import annotations

import html
from pathlib import Path

from gallery import EXAMPLES

from unhot.evaluation.verdict import MEANINGS
from unhot.records.audit import AuditRecord
from unhot.report.sentences import conclusions
from unhot.report.tables import SUBJECTS, value_text

SHOWN = {
    "forget_accuracy": "classified as the digit",
    "retain_accuracy": "accuracy on the other digits",
    "recovery_5_shot": "recovered from the features with five images",
    "original_features_r2": "original's features predicted",
}

NONE = "None of the models of this page earned this label when the site was built.\n"


def page(gallery: Path) -> str:
    """Return what `make docs` adds to the page.

    Args:
        gallery: The folder that gallery.py wrote.
    """
    audits = {name: AuditRecord.read(gallery / name / "audit.json") for name in EXAMPLES}
    text = []
    for label, meaning in MEANINGS.items():
        text.append(f"## {label.capitalize()}\n\n{meaning.of('features')}\n")
        mine = {name: record for name, record in audits.items() if record.verdict.label == label}
        text += [_example(name, record) for name, record in mine.items()] or [NONE]
    return "\n".join(text)


def _example(name: str, record: AuditRecord) -> str:
    """Return what an example is, its values beside those of the other models, and its verdicts."""
    example = EXAMPLES[name]
    subjects = [s for s in SUBJECTS if s != "retrained" or record.inputs.retrained_sha256]
    heads = ["", *subjects]
    rows = [[title, *(value_text(record.find(name, s)) for s in subjects)] for name, title in SHOWN.items()]
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    said = "\n".join(f"- {html.escape(sentence)}" for sentence in conclusions(record))
    link = f"[The whole page of this audit](gallery/{name}/report.html)"
    return f"### {example.title}\n\n{example.made}\n\n" + "\n".join(lines) + f"\n\n{said}\n\n{link}\n"
