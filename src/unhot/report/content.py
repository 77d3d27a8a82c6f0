"""What stands on the page of one audit: an AuditRecord in the order in which a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from unhot.evaluation.verdict import MEANINGS, Meaning, Thresholds
from unhot.records.audit import AuditRecord, Reason, Subject, Verdict
from unhot.records.forget import ForgetRecord
from unhot.records.measure import Holder
from unhot.report.audited import Audited
from unhot.report.figures import Picture, joined
from unhot.report.images import Strip, strip
from unhot.report.inputs import input_text
from unhot.report.pictures import draw
from unhot.report.sentences import decided, headline, sentence
from unhot.report.tables import SUBJECTS, Row, class_names, number, rows
from unhot.report.texts import GROUPS, LIMITS, USES, WITHOUT_RETRAINED

SAMPLES_LISTED = 64
TITLED = 5  # classes that the title names
FEW = 200  # images of the forgotten classes; the interval of a share of one half is then 0.14 wide


class Fact(NamedTuple):
    """A line of what is known; a digest stands after the value, or alone."""

    name: str
    value: str
    digest: str = ""


@dataclass(frozen=True)
class Figure:
    """A number that is shown big."""

    name: str
    value: str
    notes: tuple[str, ...]


class Held(NamedTuple):
    """A line of the verdict: for whom, what, and what decided it."""

    holder: Holder
    meaning: Meaning
    label: str
    because: str


@dataclass(frozen=True)
class Gallery:
    """What an attack drew: a strip for each model; models that drew the same share one."""

    title: str
    caption: str
    strips: list[Strip]


@dataclass(frozen=True)
class Content:
    """Everything on the page of one audit."""

    audit: Audited
    key: str
    subject: str
    facts: list[Fact]
    headline: str
    meaning: Meaning
    holders: list[Held]
    figures: list[Figure]
    decided: list[Row]
    sentences: list[str]
    flags: list[str]
    thresholds: list[tuple[str, str, str]]
    groups: list[tuple[str, str, list[Row]]]
    pictures: list[Picture]
    galleries: list[Gallery]
    samples: Strip | None
    cost: list[tuple[str, str, str]]
    settings: list[tuple[str, list[Fact]]]
    without_retrained: str | None
    limits: list[str]

    @property
    def question(self) -> str:
        """What the page answers."""
        classes = self.record.classes
        named, more = classes[:TITLED], len(classes) - TITLED
        also = f" and {more} more" if more > 0 else ""
        return f"{'Was' if len(classes) == 1 else 'Were'} {class_names(named)}{also} forgotten?"

    @property
    def record(self) -> AuditRecord:
        """The audit."""
        return self.audit.record


def content(audit: Audited, key: str) -> Content:
    """Put the page of one audit together; ``key`` is its id on the page."""
    record = audit.record
    table = rows(record)
    verdict = record.verdict
    # the values that were measured stand in the table of what decided it
    reasons = [r for r in verdict.because if isinstance(r, str) or r.code != "measured"]
    return Content(
        audit=audit,
        key=key,
        subject=class_names(record.classes),
        facts=list(facts(record)),
        headline=headline(verdict),
        meaning=MEANINGS[verdict.label],
        holders=[
            Held(name, MEANINGS[one.label], one.label, decided(name, one, record))
            for name, one in verdict.holders.items()
        ],
        figures=list(_figures(record)),
        decided=_decided(record, table),
        sentences=[sentence(r, record) for r in reasons],
        flags=[sentence(f, record) for f in verdict.flags],
        thresholds=list(thresholds(record.verdict)),
        groups=[(g, about, [r for r in table if r.measure.group == g]) for g, about in GROUPS.items()],
        pictures=draw(record),
        galleries=list(_galleries(audit)),
        samples=_samples(audit),
        cost=list(cost(record)),
        settings=list(_settings(record)),
        without_retrained=None if record.inputs.retrained_sha256 else WITHOUT_RETRAINED,
        limits=limits(record),
    )


def facts(record: AuditRecord) -> Iterator[Fact]:
    """Say what was forgotten, and from what."""
    made, inputs = record.made_by, record.inputs
    yield Fact("Forgotten", class_names(record.classes))
    if made is None:
        yield Fact("Method", "not known: there is no record of how this unlearned model was made")
    else:
        yield Fact("Method", f"{made.method}, seed {made.seed}")
        yield Fact(
            "Samples used", f"{sum(made.samples.count)} images of the forgotten classes, from {made.samples.origin}"
        )
        yield Fact("Read while forgetting", ", ".join(USES.get(u, u) for u in made.uses) or "nothing")
        if made.guard_sha256 is not None:
            yield Fact("Stored statistics", "SHA-256", made.guard_sha256)
        yield from _checked_after(made)
    yield Fact("Audited on", _evaluated_on(record))
    yield Fact("Data", inputs.data)
    if inputs.preprocessing is not None:
        yield Fact("Inputs", f"Pictures are {input_text(inputs.preprocessing)}.")
    yield Fact("Original model", "SHA-256", inputs.original_sha256)
    yield Fact("Unlearned model", "SHA-256", inputs.unlearned_sha256)
    for i, value in enumerate(inputs.retrained_sha256, 1):
        yield Fact(f"Retrained model {i}" if len(inputs.retrained_sha256) > 1 else "Retrained model", "SHA-256", value)
    if not inputs.retrained_sha256:
        yield Fact("Retrained model", "none was given")


def _checked_after(made: ForgetRecord) -> Iterator[Fact]:
    """Say how the images that the run was checked on are classified by the unlearned model; older records have none."""
    if made.recognised:
        what = ["samples" if c.label in made.classes else "other images" for c in made.recognised]
        yield Fact(
            "Still classified as their class",
            "; ".join(
                f"{c.label.name}: {c.after:,} of {c.n:,} {images} ({c.before:,} before)"
                for c, images in zip(made.recognised, what, strict=True)
            ),
        )
    if (accuracy := made.retained_accuracy) is not None:
        read = ", which the method read too" if accuracy.read_by_method else ""
        yield Fact(
            "Accuracy on the retained classes",
            f"{percent(accuracy.after)} ({percent(accuracy.before)} before), on {accuracy.n:,} images from "
            f"{accuracy.origin}{read}",
        )


def _evaluated_on(record: AuditRecord) -> str:
    """Say how many images of each split were evaluated, and of how many."""
    images, given = record.inputs.images, record.inputs.given
    counts = [f"{n:,}{f' of {given[s]:,}' if s in given else ''} {s} images" for s, n in images.items()]
    return " and ".join(counts) + (f"; seed {record.seed}" if given else "")


def cost(record: AuditRecord) -> Iterator[tuple[str, str, str]]:
    """Give what forgetting and auditing took: name, value, what it is."""
    spent, made = record.cost, record.made_by
    if made is not None:
        yield "Samples used", f"{sum(made.samples.count):,}", "Images that the method was given."
        yield "Steps", f"{made.cost.steps:,}", "Optimiser steps of the method."
        yield (
            "Peak memory",
            f"{made.cost.peak_memory_bytes / 2**20:,.0f} MiB",
            "Peak memory of the process, or of its device.",
        )
    own, floor, again = spent.forget_seconds, spent.floor_seconds, spent.retrain_seconds
    if own is not None:
        yield "Forgetting", seconds(own), "Wall time of the method itself."
    if floor is not None:
        yield (
            "Floor",
            seconds(floor),
            "One forward and backward pass of the original over as many images: no training is faster.",
        )
    if own is not None and floor:
        yield "Multiple of the floor", f"{own / floor:,.0f} ×", "Time of forgetting divided by the floor."
    if again is not None:
        yield "Retraining", seconds(again), "Training a retrained model, from its record."
    if own and again is not None:
        yield "Speed-up", f"{again / own:,.1f} ×", "Time of retraining divided by time of forgetting."
    yield "Audit", seconds(spent.audit_seconds), "All measures and attacks of this page."
    yield (
        "Forward passes",
        seconds(spent.forward_seconds),
        "The part of the audit in which all models are run over all images once.",
    )


def seconds(value: float) -> str:
    """Return a duration as text."""
    if value < 0.1:
        return f"{float(f'{value * 1000:.2g}'):g} ms"  # .2g alone gives 1e+02
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def percent(value: float) -> str:
    """Return a fraction as text."""
    return f"{100 * value:.1f}\u00a0%"


def limits(record: AuditRecord) -> list[str]:
    """Say what an audit does not prove."""
    return [*_own_limits(record), *LIMITS]


def _decided(record: AuditRecord, table: list[Row]) -> list[Row]:
    """Return the rows of the measures that the reasons of the verdict name."""
    named = dict.fromkeys(key.name for r in record.verdict.because if isinstance(r, Reason) for key in r.measurements)
    return [row for name in named for row in table if row.measure.name == name and row.split in ("test", None)]


def thresholds(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """Give name, value and meaning of each threshold."""
    known = Thresholds.model_fields
    for name, value in verdict.thresholds.items():
        yield name, f"{value:g}", (known[name].description or "") if name in known else ""


def _figures(record: AuditRecord) -> Iterator[Figure]:
    recovered: tuple[str, str, Subject] = ("recovery_1_shot", "Recovered from the features with one image", "masked")
    if record.find("recovery_1_shot", "unlearned") is None:
        recovered = ("probe_accuracy", "Forgotten classes readable from the features", "masked")
    big: tuple[tuple[str, str, Subject], ...] = (
        ("forget_accuracy", "Forgotten classes recognised", "original"),
        ("retain_accuracy", "Other classes recognised", "original"),
        recovered,
    )
    for name, title, other in big:
        own, before, again = (record.find(name, s) for s in ("unlearned", other, "retrained"))
        if own is None or own.value is None:
            continue
        others = ((other, before), ("retrained", again))
        notes = tuple(f"{s} {percent(m.value)}" for s, m in others if m is not None and m.value is not None)
        yield Figure(title, percent(own.value), notes)
    if record.made_by is not None:
        count = sum(record.made_by.samples.count)
        yield Figure("Images used to forget", f"{count:,}", (f"in {seconds(record.made_by.cost.seconds)}",))


def _galleries(audit: Audited) -> Iterator[Gallery]:
    several = len(audit.record.inputs.retrained_sha256) > 1
    for drawn in audit.record.pictures:
        files = {s: drawn.files[s].file for s in SUBJECTS if s in drawn.files}
        strips: dict[str, Strip] = {}
        names: dict[str, list[str]] = {}  # masked often draws what the original draws
        for subject in (s for s, file in files.items() if file in audit.images):
            found = strip(audit.images[files[subject]], subject)
            names.setdefault(found.address, []).append(subject)
            strips[found.address] = replace(found, name=joined(names[found.address]))
        first = " Of the retrained models the first is shown." if several and "retrained" in files else ""
        yield Gallery(drawn.title or drawn.name, (drawn.caption + first).strip(), list(strips.values()))


def _samples(audit: Audited) -> Strip | None:
    file = audit.record.samples
    return strip(audit.images[file.file], "samples") if file is not None and file.file in audit.images else None


def _settings(record: AuditRecord) -> Iterator[tuple[str, list[Fact]]]:
    made = record.made_by
    if made is not None:
        yield "Method", [Fact("name", made.method), *(Fact(k, text(v)) for k, v in made.hyperparameters.items())]
        yield "Run", list(_run(made))
    yield "Audit", [Fact("seed", str(record.seed))]
    yield "Attacks", [Fact(name, _joined(fields)) for name, fields in record.attacks.items()]
    yield "Data, SHA-256", [Fact(f"{s} images", "", value) for s, value in record.inputs.data_sha256.items()]
    known = [(k, v) for k, v in record.environment if v is not None]  # older records lack some
    yield "Environment of the audit", [Fact(k.replace("_", " "), str(v)) for k, v in known]


def _run(made: ForgetRecord) -> Iterator[Fact]:
    yield Fact("seed", str(made.seed))
    yield Fact("stopped because", made.stop_reason)
    yield from (Fact(k.replace("_", " "), text(v)) for k, v in made.notes.items())
    yield Fact("digest of the run", "", made.digest)
    yield Fact("model before", "", made.model_sha256)
    yield Fact("model after", "", made.weights_sha256)
    keys = made.samples.indices or range(len(made.samples.sha256))
    listed = [f"{k}:\u00a0{d[:12]}" for k, d in zip(keys, made.samples.sha256, strict=False)]
    more = f" and {len(listed) - SAMPLES_LISTED} more in audit.json" if len(listed) > SAMPLES_LISTED else ""
    yield Fact("samples, SHA-256 begins", "", ", ".join(listed[:SAMPLES_LISTED]) + more)


def text(value: object) -> str:
    """Return a JSON value as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return _joined(value)
    return ", ".join(text(v) for v in value) if isinstance(value, list) else str(value)


def _joined(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{k} {text(v)}" for k, v in fields.items()) or "no settings"


def _own_limits(record: AuditRecord) -> Iterator[str]:
    made, inputs = record.made_by, record.inputs
    if not inputs.retrained_sha256:
        yield (
            "There was no retrained model to compare with, so nothing here says what a model that never saw the class "
            "holds."
        )
    elif len(inputs.retrained_sha256) == 1:
        yield (
            "There was one retrained model. Retrained models differ from one another; by how much was not measured "
            "here. The verdict allows for as much as was measured on models of digits and of Fashion-MNIST."
        )
    if made is not None:
        yield (
            f"The model was made with one draw of {sum(made.samples.count)} samples and one seed. Another draw would "
            "give another model, with other values."
        )
    else:
        yield "How the unlearned model was made is not known; that it comes from the original was not checked."
    least = min((m.n for m in record.measurements if m.name == "forget_accuracy" and m.n), default=0)
    if 0 < least < FEW:
        yield (
            f"A split has only {least} images of the forgotten classes, so the intervals are wide: a single image "
            f"changes a share by {number(1 / least)}."
        )
