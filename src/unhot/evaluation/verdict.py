"""The verdict: what the measurements say together, and what its labels and thresholds mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import Field

from unhot.records.audit import (
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

RECOVERY = ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy")

Find = Callable[[str, Subject], Measurement]


class Meaning(NamedTuple):
    """What a label says: whether that is good news, and in a sentence or two."""

    tone: Literal["good", "part", "bad", "open"]
    text: str


MEANINGS: dict[VerdictLabel, Meaning] = {
    "not forgotten": Meaning(
        "bad",
        "The model still assigns images of the forgotten classes to their class.",
    ),
    "model damaged": Meaning(
        "bad",
        "The class may be gone, but the model lost too much of what it was meant to keep.",
    ),
    "hidden at the output only": Meaning(
        "bad",
        "The model no longer names the class, but nearly everything that it knew about it can still be read "
        "from its features.",
    ),
    "short of a retrained model": Meaning(
        "part",
        "Part of what the features told about the class is gone; more of it is left than in a model that "
        "never saw the class.",
    ),
    "at the level of a retrained model": Meaning(
        "good",
        "What can be read or brought back of the class is what a model that never saw it gives away, too.",
    ),
    "beyond a retrained model": Meaning(
        "part",
        "Less of the class can be read or brought back than from a model that never saw it. That is not "
        "better by itself: what is missing can be noticed.",
    ),
    "undecided (no retrained model)": Meaning(
        "open",
        "The output no longer names the class. Whether the features still hold it cannot be decided without a "
        "model that never saw it.",
    ),
}


def _limit(default: float, meaning: str, le: float | None = None) -> Any:
    return Field(default=default, ge=0, le=le, description=meaning)


class Thresholds(Stored):
    """With what the measurements are compared.

    Recovery is what the linear probe, the nearest neighbours and the prototype attack find of the forgotten classes.
    The share of the gap that is closed is (masked - unlearned) / (masked - retrained), the three summed. Models trained
    without the class from different seeds differ widely in it, so with a single one to compare with the thresholds must
    be wide: benchmarks/verdict_noise.py measures how wide.
    """

    forgotten: float = _limit(
        0.05, "Forget accuracy up to this above a retrained model's (above 0 without one) counts as forgotten.", le=1
    )
    damage: float = _limit(0.1, "Retain drop (classes masked) above this counts as damage.", le=1)
    unchanged: float = _limit(
        0.99, "Features with a similarity (CKA) above this with the original's count as unchanged.", le=1
    )
    closed_least: float = _limit(0.2, "Below this share of the gap closed, the class is hidden at the output only.")
    closed_level: float = _limit(
        0.7, "From this share on, the model is at the level of a retrained one, if no measure is further apart."
    )
    few_images: float = _limit(
        200, "With fewer forgotten test images, measures are noisy: closed_level_few and apart_few decide."
    )
    closed_level_few: float = _limit(0.45, "Stands in for closed_level on few forgotten test images.")
    closed_beyond: float = _limit(2.2, "Above this share, the model is beyond a retrained one.")
    apart: float = _limit(
        0.4, "Linear probe and nearest neighbours may find no more than this above the retrained model's value."
    )
    apart_few: float = _limit(0.5, "Stands in for apart on few forgotten test images.")
    small_gap: float = _limit(
        0.15, "Where masked and retrained differ by less in sum, the tolerance decides instead of the share."
    )
    tolerance: float = _limit(0.1, "Recovery within this of the retrained model's, in sum, counts as the same.")


def judge(find: Find, thresholds: Thresholds, flags: Iterable[Flag] = ()) -> Verdict:
    """Give the verdict on the unlearned model.

    Args:
        find: Gives the measurement of a name and a subject.
        thresholds: The bounds that measurements are compared with.
        flags: Caveats that do not come from measurements.
    """
    label, because = _label(find, thresholds)
    return Verdict(
        label=label,
        because=tuple(because),
        thresholds=thresholds.model_dump(),
        flags=(*flags, *_flags(find)),
    )


def reason(code: ReasonCode, *measurements: Measurement, **numbers: float) -> Reason:
    """Make a reason of what it is about."""
    return Reason(code=code, measurements=_keys(measurements), numbers=numbers)


def flag(code: FlagCode, *measurements: Measurement, **numbers: float) -> Flag:
    """Make a flag of what it is about."""
    return Flag(code=code, measurements=_keys(measurements), numbers=numbers)


def _label(find: Find, limits: Thresholds) -> tuple[VerdictLabel, list[Reason]]:
    drop = find("retain_drop_masked", "unlearned")
    forget, reference = find("forget_accuracy", "unlearned"), find("forget_accuracy", "retrained")
    if _value(drop) > limits.damage:
        return "model damaged", [reason("damaged", drop, limit=limits.damage)]
    allowed = limits.forgotten + (reference.value or 0.0)
    if _value(forget) > allowed:
        return "not forgotten", [reason("still_recognised", forget, limit=allowed)]
    cka = find("feature_cka", "unlearned")
    if cka.value is not None and cka.value > limits.unchanged:
        return "hidden at the output only", [reason("features_unchanged", forget, cka, limit=limits.unchanged)]
    names = [n for n in RECOVERY if find(n, "unlearned").value is not None]
    because = [reason("measured", *(find(n, s) for s in ("unlearned", "masked", "retrained"))) for n in names]
    if not names:
        return "undecided (no retrained model)", [
            reason("no_retrained_model" if reference.value is None else "nothing_to_read")
        ]
    decide = _without_reference if reference.value is None else _beside_reference
    label, more = decide(find, limits, names)
    return label, [*because, *more]


def _without_reference(find: Find, limits: Thresholds, names: list[str]) -> tuple[VerdictLabel, list[Reason]]:
    """Judge what can be read of the classes where there is no retrained model to compare with."""
    left = sum(_value(find(n, "unlearned")) for n in names)
    limit = (1 - limits.closed_least / 2) * sum(_value(find(n, "masked")) for n in names)
    if left >= limit:
        return "hidden at the output only", [reason("nearly_all_left", left=left, limit=limit)]
    return "undecided (no retrained model)", [reason("no_retrained_model")]


def _beside_reference(find: Find, limits: Thresholds, names: list[str]) -> tuple[VerdictLabel, list[Reason]]:
    """Judge what can be read of the classes beside what can be read of them in retrained models."""
    above = {n: _value(find(n, "unlearned")) - _value(find(n, "retrained")) for n in names}
    left = sum(above.values())
    gap = sum(_value(find(n, "masked")) - _value(find(n, "retrained")) for n in names)
    if gap < limits.small_gap:
        same = abs(left) <= limits.tolerance
        beyond: VerdictLabel = "beyond a retrained model" if left < 0 else "short of a retrained model"
        why = reason("small_gap", gap=gap, limit=limits.small_gap, left=left, tolerance=limits.tolerance)
        return ("at the level of a retrained model" if same else beyond), [why]
    closed = 1 - left / gap
    because = [reason("gap_closed", share=closed, gap=gap)]
    if closed < limits.closed_least:
        return "hidden at the output only", because
    few = find(names[0], "unlearned").n < limits.few_images
    apart = limits.apart_few if few else limits.apart
    if wide := [n for n in RECOVERY[:2] if above.get(n, 0.0) > apart]:
        because.append(reason("apart", *(find(n, "unlearned") for n in wide), limit=apart))
    if closed < (limits.closed_level_few if few else limits.closed_level) or wide:
        return "short of a retrained model", because
    if closed <= limits.closed_beyond:
        return "at the level of a retrained model", because
    return "beyond a retrained model", because


def _flags(find: Find) -> Iterator[Flag]:
    """Give what the label leaves out."""
    for name in RECOVERY:
        own, other = find(name, "unlearned"), find(name, "retrained")
        if own.high is not None and other.low is not None and own.high < other.low:
            yield flag("below_retrained", own, other)
    gap = find("class_mia_gap", "unlearned")
    if gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0):
        yield flag("class_given_away" if gap.low > 0 else "class_hidden", gap)
    area, other = find("mia_auc", "unlearned"), find("mia_auc", "retrained")
    if area.high is not None and area.high < 0.5 and (other.low is None or area.high < other.low):
        yield flag("members_below_chance", area)
    if area.low is not None and area.low > 0.5 and (other.high is None or area.low > other.high):
        yield flag("members_above_chance", area)


def _keys(measurements: Iterable[Measurement]) -> tuple[MeasurementKey, ...]:
    return tuple(MeasurementKey(name=m.name, subject=m.subject, split=m.split) for m in measurements)


def _value(m: Measurement) -> float:
    return 0.0 if m.value is None else m.value
