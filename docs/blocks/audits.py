"""Tables of the audit: its measures, the models that it reads, and how far its verdicts can be relied on."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict

import kinds
import verdict_noise
from blocks.records import RECORDS
from unhot.bench import tables
from unhot.evaluation.catalogue import BUILTIN
from unhot.evaluation.verdict import HOLDERS
from unhot.records.audit import AuditRecord
from unhot.report.tables import SUBJECTS, value_text


def verdicts() -> str:
    """One row a set of nets and number of references: how often each kind of model was given which label."""
    shown = {"masked": "hidden", "nhle-cwm": "hidden", "retrained": "at the level"}
    rows = []
    for path in sorted(RECORDS.glob("verdict-noise-*.json")):
        content = json.loads(path.read_text())
        for references in (1, 2):
            labels: dict[tuple[str, str], list[str]] = defaultdict(list)
            for cell in content["cells"]:
                for name, holder, label in verdict_noise.judged(cell["models"], references):
                    labels[name.split()[0], holder].append(label)
            row = [f"{content['dataset']}, {content['arch']}", str(references)]
            for holder in HOLDERS:
                for kind, wanted in shown.items():
                    found = labels[kind, holder]
                    row.append(f"{sum(label.startswith(wanted) for label in found)} of {len(found)}")
            rows.append(row)
    heads = [f"{holder}: {kind} {label}" for holder in HOLDERS for kind, label in shown.items()]
    return tables.grid(["trained on", "references", *heads], rows)


def partial_references() -> str:
    """One row a set of nets: what is recovered from references of few images beside retrained models."""
    rows = []
    for path in sorted(RECORDS.glob("partial-references-*.json")):
        content = json.loads(path.read_text())
        row = [f"{content['dataset']}, {content['arch']}"]
        for measure in ("recovery_1_shot", "recovery_5_shot"):
            found: dict[str, list[float]] = defaultdict(list)
            for cell in content["cells"]:
                value = {name: m[measure][0] for name, m in cell["models"].items() if measure in m}
                retrained = [v for name, v in value.items() if name.startswith("retrained")]
                middle = statistics.fmean(retrained)
                found["seeds"].append(statistics.stdev(retrained))
                for name in ("masked", "partial", "fewer"):
                    found[name].append(value[name] - middle)
            for name in ("masked", "partial", "fewer"):
                size = statistics.fmean(v * v for v in found[name]) ** 0.5
                row.append(f"{statistics.fmean(found[name]):+.3f} ({size:.3f})")
            row.append(f"{statistics.fmean(v * v for v in found['seeds']) ** 0.5:.3f}")
        rows.append(row)
    heads = [f"{n}: {what}" for n in ("1 image", "5 images") for what in ("masked", "partial", "fewer", "seeds")]
    return tables.grid(["trained on", *heads], rows)


def tricks() -> str:
    """One row a trick, one column a set of nets and holder: how often whom was told which label."""
    labels: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    undone, kept = dict[str, str](), dict[str, list[float]]()
    for path in sorted(RECORDS.glob("tricks-*.json")):
        content = json.loads(path.read_text())
        for cell in content["cells"]:
            undone[cell["model"]] = cell.get("undone_by", "–")
            kept.setdefault(cell["model"], []).append(cell["same_answers"])
            for holder, label in cell["labels"].items():
                labels[cell["model"]][f"{content['dataset']}, {content['arch']}: {holder}"][tables.short(label)] += 1
    columns = list(dict.fromkeys(column for found in labels.values() for column in found))
    rows = [
        [model, undone[model], f"{min(kept[model]):.3f}"]
        + [", ".join(f"{label} {n}" for label, n in found[column].most_common()) or "–" for column in columns]
        for model, found in labels.items()
    ]
    return tables.grid(["model", "undone by", "same answers, least", *columns], rows)


def full_audit() -> str:
    """One row a measure that the verdicts of the full audit compare, one column a model."""
    record = AuditRecord.read(RECORDS / "audit-cifar10-cat.json")
    shown = ("forget_accuracy", "retain_drop_masked", "original_outputs_r2", "recovery_5_shot", "recovery_all_images")
    rows = [[BUILTIN[name].title, *(value_text(record.find(name, s)) for s in SUBJECTS)] for name in shown]
    return tables.grid(["measure", *SUBJECTS], rows)


def measures() -> str:
    """One row a measure of an audit."""
    rows = [[m.title, m.name, m.sentence, m.reading, m.source] for m in BUILTIN.values()]
    return tables.grid(["measure", "name", "what is compared", "how to read it", "source"], rows, text=5)


def models_read() -> str:
    """One row a kind of model that the tests read or see refused, and with which words."""
    rows = []
    for kind in kinds.KINDS:
        does = f"refused: “… {kind.words} …”" if kind.words else "read"
        rows.append([kind.group, kind.what, f"{does}, with a note" if kind.said else does])
    return tables.grid(["what", "which", "what happens"], rows, text=3)
