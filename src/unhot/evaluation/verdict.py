"""The verdict: what the measurements say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import Field

from unhot.records.audit import Measurement, Subject, Verdict, VerdictLabel
from unhot.records.base import Stored

RECOVERY = ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy")

Find = Callable[[str, Subject], Measurement]


class Thresholds(Stored):
    """With what the measurements are compared.

    Recovery is what the linear probe, the nearest neighbours and the prototype attack find of the forgotten classes.
    The share of the gap that is closed is (masked - unlearned) / (masked - retrained), the three summed. Models trained
    without the class from different seeds differ widely in it, so with a single one to compare with the thresholds must
    be wide: benchmarks/verdict_noise.py measures how wide.

    Attributes:
        forgotten: Forget accuracy up to this above a retrained model's (above 0 without one) counts as forgotten.
        damage: ``retain_drop_masked`` above this counts as damage.
        unchanged: Features with a CKA above this with the original's count as unchanged.
        closed_least: Below this share the class is hidden at the output only.
        closed_level: From this share on the model is at the level of a retrained one, if no measure is further `apart`.
        few_images: With fewer forgotten test images than this measures are noisy: `closed_level_few` and `apart_few`
            count.
        closed_level_few: See there.
        closed_beyond: Above this share it is beyond it.
        apart: No more than this may the probe or the neighbours find above what they find in a retrained model.
        apart_few: The same, with few images.
        small_gap: Where masked and retrained differ by less in sum, the share says nothing, and `tolerance` decides.
        tolerance: Recovery within this of the retrained model's, in sum, counts as the same.
    """

    forgotten: float = Field(default=0.05, ge=0, le=1)
    damage: float = Field(default=0.1, ge=0, le=1)
    unchanged: float = Field(default=0.99, ge=0, le=1)
    closed_least: float = Field(default=0.2, ge=0)
    closed_level: float = Field(default=0.7, ge=0)
    few_images: float = Field(default=200, ge=0)
    closed_level_few: float = Field(default=0.45, ge=0)
    closed_beyond: float = Field(default=2.2, ge=0)
    apart: float = Field(default=0.4, ge=0)
    apart_few: float = Field(default=0.5, ge=0)
    small_gap: float = Field(default=0.15, ge=0)
    tolerance: float = Field(default=0.1, ge=0)


def judge(find: Find, thresholds: Thresholds, flags: Iterable[str] = ()) -> Verdict:
    """Give the verdict on the unlearned model.

    Args:
        find: Gives the measurement of a name and a subject.
        thresholds: With what to compare.
        flags: What else a reader should know, that no measurement says.
    """
    label, because = _label(find, thresholds)
    said = (*flags, *_flags(find))
    return Verdict(label=label, because=tuple(because), thresholds=thresholds.model_dump(), flags=said)


def _label(find: Find, limits: Thresholds) -> tuple[VerdictLabel, list[str]]:
    drop = find("retain_drop_masked", "unlearned")
    forget, reference = find("forget_accuracy", "unlearned"), find("forget_accuracy", "retrained")
    if _value(drop) > limits.damage:
        return "model damaged", [f"{_say(drop)}: more than {limits.damage:g} of the retained accuracy is lost."]
    allowed = limits.forgotten + (reference.value or 0.0)
    if _value(forget) > allowed:
        return "not forgotten", [f"{_say(forget)}: more than {allowed:.3g}."]
    cka = find("feature_cka", "unlearned")
    if cka.value is not None and cka.value > limits.unchanged:
        return "hidden at the output only", [
            f"{_say(forget)}, but {_say(cka)}: the features of the forgotten classes are those of the original."
        ]
    names = [n for n in RECOVERY if find(n, "unlearned").value is not None]
    said = [f"{_say(find(n, 'unlearned'))}; {_say(find(n, 'masked'))}; {_say(find(n, 'retrained'))}." for n in names]
    if reference.value is None or not names:
        left = sum(_value(find(n, "unlearned")) for n in names)
        before = sum(_value(find(n, "masked")) for n in names)
        if names and left >= (1 - limits.closed_least / 2) * before:
            return "hidden at the output only", [*said, "Nearly all that the features told before can still be read."]
        missing = (
            "A model trained without the class" if reference.value is None else "Something to read in the features"
        )
        return "not decided without a retrained model", [
            *said,
            f"{missing} is needed to say more.",
        ]
    left = sum(_value(find(n, "unlearned")) - _value(find(n, "retrained")) for n in names)
    gap = sum(_value(find(n, "masked")) - _value(find(n, "retrained")) for n in names)
    if gap < limits.small_gap:
        same = abs(left) <= limits.tolerance
        said.append(f"A retrained model's features tell nearly as much as the original's (they differ by {gap:.3f}).")
        beyond: VerdictLabel = "beyond a retrained model" if left < 0 else "short of a retrained model"
        return ("at the level of a retrained model" if same else beyond), said
    closed = 1 - left / gap
    said.append(f"Of the gap between the masked original and a retrained model {closed:.0%} is closed.")
    if closed < limits.closed_least:
        return "hidden at the output only", said
    above = {n: _value(find(n, "unlearned")) - _value(find(n, "retrained")) for n in RECOVERY[:2]}
    few = find(names[0], "unlearned").n < limits.few_images
    apart = limits.apart_few if few else limits.apart
    if wide := [n for n in above if above[n] > apart]:
        said.append(f"{', '.join(wide)} is more than {apart:g} above a retrained model's.")
    if closed < (limits.closed_level_few if few else limits.closed_level) or wide:
        return "short of a retrained model", said
    if closed <= limits.closed_beyond:
        return "at the level of a retrained model", said
    return "beyond a retrained model", said


def _flags(find: Find) -> list[str]:
    """Say what the label leaves out."""
    found = []
    for name in RECOVERY:
        own, other = find(name, "unlearned"), find(name, "retrained")
        if own.high is not None and other.low is not None and own.high < other.low:
            found.append(f"{name} is below the retrained model's: suppressed beyond it, which is not better by itself.")
    gap = find("class_mia_gap", "unlearned")
    if gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0):
        way = "give the class away more" if gap.low > 0 else "tell the class from its neighbours less"
        found.append(f"The outputs {way} than a retrained model's do ({_say(gap)}).")
    area = find("mia_auc", "unlearned")
    other = find("mia_auc", "retrained")
    if area.high is not None and area.high < 0.5 and (other.low is None or area.high < other.low):
        found.append(f"{_say(area)} is below chance: images that were trained on stand out, which is a leak too.")
    if area.low is not None and area.low > 0.5 and (other.high is None or area.low > other.high):
        found.append(f"{_say(area)} is above chance: images that were trained on can be told from others.")
    return found


def _value(m: Measurement) -> float:
    return 0.0 if m.value is None else m.value


def _say(m: Measurement) -> str:
    where = f"{m.name} ({m.subject})"
    return f"{where} absent" if m.value is None else f"{where} {m.value:.3f} [{m.low:.3f}, {m.high:.3f}]"
