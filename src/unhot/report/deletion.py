"""The page of a deletion record: one file to print, made of the record alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from unhot.evaluation.verdict import MEANINGS, Meaning
from unhot.records.audit import Measurement, Subject
from unhot.records.deletion import DeletionRecord, Evidence
from unhot.report.content import Fact, text, thresholds
from unhot.report.page import template
from unhot.report.tables import SUBJECTS, class_names, number, value_text

FINGERPRINT = 16  # characters of a digest that are enough to tell files apart by eye


class Row(NamedTuple):
    """One measure on one split, as text for each model."""

    title: str
    cells: dict[Subject, str]


class Shown(NamedTuple):
    """One audit as it is shown."""

    evidence: Evidence
    meaning: Meaning
    rows: list[Row]
    absent: list[str]
    thresholds: list[tuple[str, str, str]]
    facts: list[Fact]


def render(record: DeletionRecord) -> str:
    """Return the page of a record as HTML.

    Args:
        record: The record; the digest of its page is not shown on it.
    """
    page = template("deletion.html.j2").render(
        record=record,
        classes=class_names(record.classes),
        summary=" ".join(summary(record)),
        asked=list(_asked(record)),
        done=list(_done(record)),
        shown=[_shown(e) for e in record.evidence],
        subjects=SUBJECTS,
        place=list(_place(record)),
        digests=list(_digests(record)),
    )
    return page if page.endswith("\n") else page + "\n"


def summary(record: DeletionRecord) -> Iterator[str]:
    """Say in a few sentences, for somebody who is no expert, what was done and with what effect."""
    evidence, run = record.evidence[0], record.run
    yield (
        f"On request {record.request.id}, a trained model was made to forget {class_names(record.classes)}, "
        f"with {len(run.samples):,} images of it."
    )
    found = {m.subject: m for m in evidence.measurements if m.name == "forget_accuracy" and m.split == "test"}
    if (own := found.get("unlearned")) is not None and own.value is not None:
        before = found.get("original")
        was = f"; before, it recognised {before.value:.1%}" if before is not None and before.value is not None else ""
        yield f"The model now recognises {own.value:.1%} of {own.n:,} test images of it{was}."
    label, holder = evidence.verdict.label, evidence.verdict.holder
    yield f"The verdict is {label!r}: {MEANINGS[label].of(holder)}"
    if record.bounds:
        yield bounds_met(record)
    if record.place.drop is not None:
        fell = record.place.drop >= 0
        yield f"The accuracy on the other classes {'fell' if fell else 'rose'} by {number(abs(record.place.drop))}."


def bounds_met(record: DeletionRecord) -> str:
    """Say whether all the bounds that were set are met, and how many are."""
    met = len(record.bounds) - len(record.unmet)
    return f"The bounds were {'not ' if record.unmet else ''}met ({met} of {len(record.bounds)})."


def _asked(record: DeletionRecord) -> Iterator[Fact]:
    asked = record.request
    yield Fact("request", asked.id)
    yield Fact("reason", asked.reason)
    words = {"legal basis": asked.legal_basis, "approved by": asked.approved_by, "note": asked.note}
    yield from (Fact(name, value) for name, value in words.items() if value)
    if asked.received is not None:
        yield Fact("received", asked.received.isoformat())
    yield Fact("certified", f"{record.certified:%Y-%m-%d %H:%M} UTC")


def _done(record: DeletionRecord) -> Iterator[Fact]:
    run = record.run
    yield Fact("method", run.method)
    yield Fact("settings", text(run.hyperparameters) if run.hyperparameters else "none")
    yield Fact("seed", str(run.seed))
    yield Fact("ended", f"{run.stop_reason}; {run.steps} steps, {run.seconds:.2f} s")
    yield Fact("was read", ", ".join(run.read) or "nothing")
    yield Fact("was not read", ", ".join(run.not_read))
    for c in run.recognised:
        yield Fact(f"samples of {c.label.name}", f"{c.before} of {c.n} classified as it before, {c.after} after")
    known = [f"{k.replace('_', ' ')} {v}" for k, v in run.environment if v is not None]
    yield Fact("environment", ", ".join(known))


def _shown(evidence: Evidence) -> Shown:
    verdict = evidence.verdict
    facts = [
        Fact(f"{n:,} {split} images", "", evidence.data_sha256.get(split, "")) for split, n in evidence.images.items()
    ]
    facts.append(Fact("compared with", "", evidence.original_sha256))
    facts += [Fact("retrained model", "", digest) for digest in evidence.retrained_sha256]
    facts.append(Fact("audit.json", "", evidence.audit_sha256))
    rows, absent = _rows(evidence)
    return Shown(evidence, MEANINGS[verdict.label], rows, absent, list(thresholds(verdict)), facts)


def _rows(evidence: Evidence) -> tuple[list[Row], list[str]]:
    """Return the measures that have a value, and the titles of the others with the reason."""
    table: dict[tuple[str, str | None], dict[Subject, Measurement]] = {}
    for m in evidence.measurements:
        table.setdefault((m.name, m.split), {})[m.subject] = m
    titles = {m.name: m.title for m in evidence.measures}
    order = {name: i for i, name in enumerate(titles)}
    rows, absent = [], []
    for (name, split), cells in sorted(table.items(), key=lambda item: (order[item[0][0]], item[0][1] or "")):
        title = titles[name] + (f", {split} images" if split == "train" else "")
        if any(m.value is not None for m in cells.values()):
            rows.append(Row(title, {s: value_text(cells.get(s)).replace(", ", ",\u00a0") for s in SUBJECTS}))
        else:
            reasons = dict.fromkeys(m.absent_because for m in cells.values())
            absent.append(f"{title}: {next(iter(reasons)) or 'not measured'}")
    return rows, absent


def _place(record: DeletionRecord) -> Iterator[Fact]:
    place = record.place
    yield Fact("number in the chain", str(place.number))
    yield Fact("record before", "" if place.previous else "none: it is the first", place.previous or "")
    drops = {
        "cost of this request": place.drop,
        "cost of all, added up": place.drop_so_far,
        "cost of all, against the first model": place.drop_from_first,
    }
    for name, drop in drops.items():
        yield Fact(name, "not measured" if drop is None else f"{number(drop)} of the accuracy on retained classes")


def _digests(record: DeletionRecord) -> Iterator[Fact]:
    yield Fact("weights before", "", record.original_sha256)
    yield Fact("weights after", "", record.result_sha256)
    yield Fact("first model of the chain", "", record.place.first_model_sha256)
    yield from (Fact(name, "", digest) for name, digest in record.files.items())
    if record.run.retain_sha256 is not None:
        yield Fact(f"{record.run.retain_images:,} retained images", "", record.run.retain_sha256)
    if record.run.guard_sha256 is not None:
        yield Fact("guard", "", record.run.guard_sha256)
    yield Fact("run", "", record.run.digest)
    samples = ", ".join(digest[:FINGERPRINT] for digest in record.run.samples)
    yield Fact("samples, first digits of each digest", "", samples)
