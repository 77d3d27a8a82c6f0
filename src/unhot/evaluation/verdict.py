"""The verdict: what the measurements say together, and what its labels and thresholds mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from unhot.records.audit import (
    AuditRecord,
    Conclusion,
    Flag,
    FlagCode,
    Measurement,
    MeasurementKey,
    Reason,
    ReasonCode,
    Subject,
    Verdict,
    VerdictLabel,
)
from unhot.records.base import Stored
from unhot.records.measure import Holder, Measure

Find = Callable[[str, Subject], Measurement]
Judged = tuple[VerdictLabel, list[Reason]]

# what each holder has, from the least to the most: whoever has the weights computes the features, too
HOLDERS: dict[Holder, tuple[Holder, ...]] = {
    "outputs": ("outputs",),
    "features": ("features",),
    "weights": ("features", "weights"),
}

Z = statistics.NormalDist().inv_cdf(0.975)  # standard errors in half a 95 % interval
INFORMATIVE = 0.5  # a similarity that is lower for the masked original itself says nothing
HALF = 0.5  # of its gap; features that are much like the original's are disguised, unless a recovery closes as much


class Meaning(NamedTuple):
    """What a label says: whether that is good news, and in a sentence or two about what somebody holds.

    Attributes:
        tone: Whether it is good news.
        text: What it says; ``{}`` is what somebody holds.
        of_outputs: What it says of the outputs, where that takes other words.
    """

    tone: Literal["good", "part", "bad", "open"]
    text: str
    of_outputs: str = ""

    def of(self, holder: Holder | None) -> str:
        """Return the text for a holder; files that knew none spoke of the features."""
        text = self.of_outputs if holder == "outputs" and self.of_outputs else self.text
        return text.format(holder or "features")


MEANINGS: dict[VerdictLabel, Meaning] = {
    "not forgotten": Meaning(
        "bad",
        "The model still classifies images of the forgotten classes as their class.",
    ),
    "model damaged": Meaning(
        "bad",
        "The model lost too much of its accuracy on the classes that it was meant to keep.",
    ),
    "hidden at the output only": Meaning(
        "bad",
        "The model no longer answers with the class, but its {} give away nearly as much of it as those of the "
        "original whose answers were merely masked.",
        "The model no longer answers with the class, but the class is merely masked: the rest of its outputs, the "
        "probabilities of the other classes, give away nearly as much of it as those of the masked original.",
    ),
    "short of a retrained model": Meaning(
        "part",
        "The {} give away less of the class than before, but still more than those of a model that never saw it.",
    ),
    "at the level of a retrained model": Meaning(
        "good",
        "The {} give away as much of the class as those of a model that never saw it.",
    ),
    "beyond a retrained model": Meaning(
        "part",
        "The {} give away less of the class than those of a model that never saw it. That is no advantage: it can be "
        "noticed that something was removed.",
    ),
    "undecided": Meaning(
        "open",
        "The model no longer answers with the class. Whether its {} still give it away cannot be decided.",
    ),
}


def _limit(default: float, meaning: str, le: float | None = None) -> Any:
    return Field(default=default, ge=0, le=le, description=meaning)


class Thresholds(Stored):
    """With what the measurements are compared.

    Every measure that decides is compared by itself: what is recovered from the unlearned model, from the masked
    original and from retrained models. ``errors`` and the ``spread`` of each measure were set on models of the digits
    and of Fashion-MNIST, and checked on others: benchmarks/verdict_noise.py.
    """

    forgotten: float = _limit(0.05, "Forget accuracy of any class above this counts as not forgotten.", le=1)
    damage: float = _limit(0.1, "Retain drop (classes masked) above this counts as damage.", le=1)
    unchanged: float = _limit(
        0.98,
        "At this share of the masked original's value, or above it, a similarity counts as unchanged.",
        le=1,
    )
    closed: float = _limit(
        0.2,
        "If less than this share of the gap between the masked original and a retrained model is closed, the class is "
        "hidden at the output only.",
        le=1,
    )
    errors: float = _limit(2.5, "Standard errors by which two models must differ in a measure to be told apart by it.")


def judge(
    find: Find,
    measures: Iterable[Measure],
    thresholds: Thresholds,
    holder: Holder = "features",
    flags: Iterable[Flag] = (),
    doubts: Sequence[Reason] = (),
) -> Verdict:
    """Give the verdict on the unlearned model.

    Args:
        find: Gives the measurement of a name and a subject.
        measures: Declarations of what is measured.
        thresholds: The bounds that measurements are compared with.
        holder: Whose conclusion is the headline.
        flags: Caveats that do not come from measurements.
        doubts: Why nothing good can be concluded for whoever holds the weights.
    """
    deciding = [m for m in measures if m.decides is not None]
    found: dict[Holder, Conclusion] = {}
    for name, has in HOLDERS.items():
        held = [m for m in deciding if m.decides is not None and m.decides.holder in has]
        label, because = _at_the_output(find, thresholds) or _Comparison(find, held, thresholds).judged()
        found[name] = Conclusion(label=label, because=tuple(because))
    found["weights"] = _of_weights(found["weights"], found["features"], doubts)
    return Verdict(
        label=found[holder].label,
        because=found[holder].because,
        holder=holder,
        holders=found,
        thresholds=thresholds.model_dump(),
        flags=(*flags, *_flags(find)),
    )


def contradicted(record: AuditRecord) -> list[Holder]:
    """Return the holders whose label in a record is not the one that its measurements give.

    What cannot be measured of the weights, and makes their verdict undecided, is not among the measurements.
    """

    def find(name: str, subject: Subject) -> Measurement:
        found = record.find(name, subject)
        return found or Measurement(name=name, subject=subject, split="test", absent_because="not in the record")

    given = record.verdict
    again = judge(find, record.measures, Thresholds.model_validate(given.thresholds)).holders
    wrong = [holder for holder in HOLDERS if given.holders[holder].label != again[holder].label]
    if given.holders["weights"].label == "undecided" and MEANINGS[again["weights"].label].tone != "bad":
        wrong = [holder for holder in wrong if holder != "weights"]
    return wrong


def _of_weights(weights: Conclusion, features: Conclusion, doubts: Sequence[Reason]) -> Conclusion:
    """Conclude no better of the weights than of the features, and nothing good of what cannot be measured."""
    worst: tuple[VerdictLabel, ...] = ("hidden at the output only", "short of a retrained model")
    if features.label in worst and weights.label not in worst[: worst.index(features.label) + 1]:
        weights = features
    if doubts and MEANINGS[weights.label].tone != "bad":
        return Conclusion(label="undecided", because=(*doubts, *weights.because))
    return weights


def reason(code: ReasonCode, *measurements: Measurement, **numbers: float) -> Reason:
    """Make a reason of what it is about."""
    return Reason(code=code, measurements=_keys(measurements), numbers=numbers)


def flag(code: FlagCode, *measurements: Measurement, **numbers: float) -> Flag:
    """Make a flag of what it is about."""
    return Flag(code=code, measurements=_keys(measurements), numbers=numbers)


def _at_the_output(find: Find, limits: Thresholds) -> Judged | None:
    """Judge what the model answers; None if the class is gone from there, and the rest is not damaged."""
    drop = find("retain_drop_masked", "unlearned")
    forget = max((find(name, "unlearned") for name in ("forget_accuracy", "worst_forget_accuracy")), key=_value)
    if _value(drop) > limits.damage:
        return "model damaged", [reason("damaged", drop, limit=limits.damage)]
    if _value(forget) > limits.forgotten:
        return "not forgotten", [reason("still_recognised", forget, limit=limits.forgotten)]
    return None


class _Comparison:
    """The unlearned model beside the masked original and retrained models, in what somebody can measure.

    Args:
        find: Gives the measurement of a name and a subject.
        measures: The measures that decide.
        limits: The thresholds.
    """

    def __init__(self, find: Find, measures: Sequence[Measure], limits: Thresholds) -> None:
        self.find, self.limits = find, limits
        present = [m for m in measures if find(m.name, "unlearned").value is not None]
        self.similarities = [m for m in present if m.decides is not None and m.decides.similarity]
        self.recoveries = [m for m in present if m not in self.similarities]

    def judged(self) -> Judged:
        """Judge what can be measured."""
        informative = [m for m in self.similarities if _value(self.find(m.name, "masked")) >= INFORMATIVE]
        if same := [m for m in informative if self._unchanged(m)]:
            return "hidden at the output only", [reason("unchanged", self.find(same[0].name, "unlearned"))]
        if not (self.recoveries or self.similarities):
            return "undecided", [reason("nothing_measured")]
        if all(self.find(m.name, "retrained").value is None for m in (*self.recoveries, *self.similarities)):
            return "undecided", [self._about("no_retrained_model", self._strongest())]
        alike = {m.name: self._alike(m) for m in self.similarities if self._apart(m)}
        if told := [m for m in self.recoveries if self._told_apart(m)]:
            found = {m.name: self._recovered(m) for m in told}
            if all(self._closed(m) < HALF for m in told):
                left = [m.name for m in informative if alike.get(m.name) == "nearly_all_left"]
                found |= dict.fromkeys(left, "nearly_all_left")
            return self._worst(found)
        why = self._about("not_told_apart", self.recoveries[:1])
        if not alike:
            return "undecided", [why]
        label, because = self._worst(alike)
        return label, [why, *because]

    def _strongest(self) -> list[Measure]:
        """Return the measure by which most is recovered from the unlearned model, if any is."""
        found = [m for m in self.recoveries if self.find(m.name, "unlearned").value is not None]
        return sorted(found, key=lambda m: _value(self.find(m.name, "unlearned")), reverse=True)[:1]

    def _worst(self, found: dict[str, ReasonCode]) -> Judged:
        """Judge by measures that tell the masked original from retrained models: the worst finding decides."""
        kinds: dict[ReasonCode, list[Measure]] = {}
        for m in (*self.recoveries, *self.similarities):
            if m.name in found:
                kinds.setdefault(found[m.name], []).append(m)
        order: tuple[tuple[ReasonCode, VerdictLabel], ...] = (
            ("nearly_all_left", "hidden at the output only"),
            ("more_left", "short of a retrained model"),
            ("less_left", "beyond a retrained model"),
            ("as_much_left", "at the level of a retrained model"),
        )
        code, label = next((code, label) for code, label in order if code in kinds)
        return label, [
            *(reason("measured", *self._of_all(m)) for m in kinds[code]),
            self._about(code, kinds[code]),
        ]

    def _recovered(self, m: Measure) -> ReasonCode:
        """Compare what is recovered with what is recovered from retrained models."""
        own, _, retrained = (_value(x) for x in self._of_all(m))
        noise = self._noise(m, "unlearned")
        if own - retrained > noise:
            return "nearly_all_left" if self._closed(m) < self.limits.closed else "more_left"
        return "less_left" if retrained - own > noise else "as_much_left"

    def _alike(self, m: Measure) -> ReasonCode:
        """Compare the similarity with the original; models that are as unlike it as retrained ones differ widely."""
        return "nearly_all_left" if self._closed(m) < self.limits.closed else "as_much_left"

    def _closed(self, m: Measure) -> float:
        """Return how much of the gap between the masked original and retrained models is closed."""
        own, masked, retrained = (_value(x) for x in self._of_all(m))
        return (masked - own) / (masked - retrained)

    def _told_apart(self, m: Measure) -> bool:
        """Whether a recovery tells the masked original from retrained models."""
        _, masked, retrained = self._of_all(m)
        if masked.value is None or retrained.value is None:
            return False
        return masked.value - retrained.value > self._noise(m, "masked")

    def _apart(self, m: Measure) -> bool:
        """Whether a similarity tells the masked original from retrained models: their intervals are apart."""
        _, masked, retrained = self._of_all(m)
        return masked.low is not None and retrained.high is not None and masked.low > retrained.high

    def _unchanged(self, m: Measure) -> bool:
        own, masked = (_value(self.find(m.name, s)) for s in ("unlearned", "masked"))
        return own >= self.limits.unchanged * masked

    def _noise(self, m: Measure, subject: Subject) -> float:
        """Return by how much a model may differ from retrained ones by the draw of images and by its seed.

        Their errors are added as if they were independent. They are of the same images, so that errs to the safe side.
        """
        own, others = self.find(m.name, subject), self.find(m.name, "retrained")
        runs = others.runs or (_value(others),)
        of_runs = max(0.0, _half(others) - (max(runs) - min(runs)) / 2) / Z  # the interval spans all of theirs
        spread = 0.0 if m.decides is None else m.decides.spread**2
        if len(runs) > 1:
            spread = max(spread, statistics.variance(runs) - of_runs**2)
        n = len(runs)
        return self.limits.errors * math.sqrt((_half(own) / Z) ** 2 + of_runs**2 / n + spread * (1 + 1 / n))

    def _of_all(self, m: Measure) -> tuple[Measurement, Measurement, Measurement]:
        """Return a measure of the unlearned model, the masked original and retrained models."""
        return self.find(m.name, "unlearned"), self.find(m.name, "masked"), self.find(m.name, "retrained")

    def _about(self, code: ReasonCode, measures: Sequence[Measure]) -> Reason:
        """Make a reason of measures of the unlearned model."""
        return reason(code, *(self.find(m.name, "unlearned") for m in measures), closed=self.limits.closed)


def _flags(find: Find) -> Iterator[Flag]:
    """Give what the label leaves out."""
    gap = find("class_mia_gap", "unlearned")
    if gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0):
        yield flag("class_given_away" if gap.low > 0 else "class_hidden", gap)
    area, other = find("mia_auc", "unlearned"), find("mia_auc", "retrained")
    if area.high is not None and area.high < 0.5 and (other.low is None or area.high < other.low):
        yield flag("members_below_chance", area)
    if area.low is not None and area.low > 0.5 and (other.high is None or area.low > other.high):
        yield flag("members_above_chance", area)


def _half(m: Measurement) -> float:
    """Return half the width of an interval."""
    return 0.0 if m.low is None or m.high is None else (m.high - m.low) / 2


def _keys(measurements: Iterable[Measurement]) -> tuple[MeasurementKey, ...]:
    return tuple(MeasurementKey(name=m.name, subject=m.subject, split=m.split) for m in measurements)


def _value(m: Measurement) -> float:
    return 0.0 if m.value is None else m.value
