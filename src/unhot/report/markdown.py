"""The summary and the model-card section of an audit, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unhot.escaping import markdown
from unhot.evaluation.verdict import MEANINGS
from unhot.records.audit import AuditRecord, Measurement
from unhot.report.content import cost, facts, limits
from unhot.report.sentences import conclusions, headline, sentence
from unhot.report.tables import SUBJECTS, class_names, rows, value_text
from unhot.report.texts import WITHOUT_RETRAINED

CARD = (
    "forget_accuracy",
    "retain_accuracy",
    "retain_drop_masked",
    "output_recovery_1_shot",
    "recovery_1_shot",
    "recovery_5_shot",
    "layer_recovery_1_shot",
    "probe_accuracy",
    "relearn_ratio",
    "mia_auc",
    "class_mia_gap",
)


def summary(record: AuditRecord) -> str:
    """Return ``summary.md``: verdict, measurements, cost and limits on one page."""
    parts = [
        f"# Unlearning audit: {markdown(class_names(record.classes))}",
        "\n".join(_verdict(record)),
        "## What was forgotten, and from what",
        "\n".join(
            f"- {f.name}: {' '.join(filter(None, (markdown(f.value), _digest(f.digest))))}" for f in facts(record)
        ),
        "## Measurements",
        "Values with their intervals; on test images unless named otherwise.",
        _table(record, None),
    ]
    if not record.inputs.retrained_sha256:
        parts.append(WITHOUT_RETRAINED)
    parts += [
        "## Cost",
        "\n".join(f"- {name}: {value}. {what}" for name, value, what in cost(record)),
        "## What this does not prove",
        "\n".join(f"- {markdown(t)}" for t in limits(record)),
        "Pictures, definitions and settings are in `report.html`, every number is in `audit.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def model_card(record: AuditRecord) -> str:
    """Return ``model-card.md``: a section to be put into the ``README.md`` of a model on the Hugging Face Hub.

    It is plain Markdown. The Hub's metadata is YAML at the very top of that file, so a section cannot carry any; and
    its ``model-index`` wants the id of a data set and of a metric on the Hub, which forget and retain accuracy are not:
    filed as ``accuracy`` they would be compared with whole-test-set accuracies.
    """
    made = record.made_by
    how = "How it was made is not known."
    if made is not None:
        how = (
            f"It was made with the method {markdown(made.method)} of unhot {markdown(made.environment.unhot)} from "
            f"{sum(made.samples.count)} images of the forgotten classes (seed {made.seed})."
        )
    parts = [
        "## Forgotten classes",
        f"This model was made to forget {markdown(class_names(record.classes))}. {how} "
        f"The model before it has weights of SHA-256 {_digest(record.inputs.original_sha256)}, "
        f"this one {_digest(record.inputs.unlearned_sha256)}.",
        "### Audit",
        "\n".join(_verdict(record)),
        f"Measured on test images (data: {markdown(record.inputs.data)}), with intervals. "
        "*masked* is the original with "
        "the classes cut out of its output only, *retrained* was trained without them.",
        _table(record, CARD),
        "### Limits",
        "\n".join(f"- {markdown(t)}" for t in limits(record)),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(record: AuditRecord) -> Iterator[str]:
    verdict = record.verdict
    yield f"**{headline(verdict)}: {verdict.label}.** {MEANINGS[verdict.label].of(verdict.holder)}"
    yield ""
    yield from (f"- {markdown(line)}" for line in conclusions(record))
    yield from (f"- Note: {markdown(sentence(flag, record))}" for flag in verdict.flags)


def _digest(value: str) -> str:
    return f"`{value}`" if value.isalnum() else markdown(value)  # anything can stand in a file


def _cell(m: Measurement | None) -> str:
    if m is not None and m.absent_because is not None:
        return f"absent: {markdown(m.absent_because)}"
    return value_text(m)


def _table(record: AuditRecord, names: Iterable[str] | None) -> str:
    """Return a table of measurements; without names of all, and of those absent with the reason."""
    chosen = None if names is None else set(names)
    lines = [f"| measure | {' | '.join(SUBJECTS)} |", f"|---|{'---:|' * len(SUBJECTS)}"]
    for row in rows(record):
        if chosen is not None and (row.measure.name not in chosen or row.split == "train"):
            continue
        cells = [_cell(row.cells.get(s)) for s in SUBJECTS]
        if row.absent_because is not None:
            cells = [f"absent: {markdown(row.absent_because)}", *[""] * (len(SUBJECTS) - 1)]
        lines.append(f"| {markdown(row.title)} | {' | '.join(cells)} |")
    return "\n".join(lines)
