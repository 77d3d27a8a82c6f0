"""judge(): all labels, every threshold on both sides, every flag, from hand-made measurements."""

from __future__ import annotations

import re
from typing import NamedTuple, get_args

import pytest

from unhot.evaluation.verdict import RECOVERY, Thresholds, judge
from unhot.records.audit import AuditInputs, AuditRecord, Measurement, Verdict, VerdictLabel
from unhot.report.sentences import sentences

RETRAINED = 0.3, 0.3, 0.3  # probe, neighbours, prototype
MASKED = 0.8, 0.8, 0.8  # so the gap is 1.5 in sum
STEP = 1e-4

SUBJECTS = ("original", "masked", "unlearned", "retrained")
Values = dict[tuple[str, str], float | tuple[float, float, float]]


class Judged(NamedTuple):
    """A verdict, and what it says in words."""

    label: VerdictLabel
    because: list[str]
    flags: tuple[str, ...]
    thresholds: dict[str, float]


def verdict(
    values: Values | None = None,
    own: tuple[float, ...] = RETRAINED,
    alone: bool = False,
    n: int = 1_000,
    **limits: float,
) -> Judged:
    """Judge a model that is forgotten and undamaged, but for what is given; ``own`` is its recovery."""
    table: Values = {
        ("retain_drop_masked", "unlearned"): 0.0,
        ("forget_accuracy", "unlearned"): 0.0,
        ("forget_accuracy", "retrained"): 0.0,
        ("feature_cka", "unlearned"): 0.5,
    }
    for subject, found in (("unlearned", own), ("masked", MASKED), ("retrained", RETRAINED)):
        table |= {(n, subject): v for n, v in zip(RECOVERY, found, strict=True)}
    table |= values or {}

    def find(name: str, subject: str) -> Measurement:
        v = table.get((name, subject))
        if v is None or (alone and subject == "retrained"):
            return Measurement(name=name, subject=subject, split="test", absent_because="not given")
        value, low, high = v if isinstance(v, tuple) else (v, v - 0.01, v + 0.01)
        return Measurement(name=name, subject=subject, split="test", value=value, low=low, high=high, n=n)

    found = judge(find, Thresholds(**limits))
    measured = tuple(find(n, s) for n in dict.fromkeys(name for name, _ in table) for s in SUBJECTS)
    return Judged(found.label, *in_words(found, measured), found.thresholds)


def in_words(found: Verdict, measured: tuple[Measurement, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Return what a verdict says: its reasons, and its flags."""
    inputs = AuditInputs.model_construct(images={})
    said = sentences(AuditRecord.model_construct(verdict=found, measurements=measured, inputs=inputs))
    return said[: len(found.because)], tuple(said[len(found.because) :])


def closing(share: float) -> tuple[float, ...]:
    """Recovery that closes this share of the gap."""
    return tuple(m - share * (m - r) for m, r in zip(MASKED, RETRAINED, strict=True))


EXAMPLES: dict[str, Judged] = {
    "model damaged": verdict({("retain_drop_masked", "unlearned"): 0.5}),
    "not forgotten": verdict({("forget_accuracy", "unlearned"): 0.9}),
    "hidden at the output only": verdict({("feature_cka", "unlearned"): 1.0}, MASKED),
    "short of a retrained model": verdict(own=closing(0.3)),
    "at the level of a retrained model": verdict(),
    "beyond a retrained model": verdict(own=closing(2.5)),
    "undecided (no retrained model)": verdict(own=closing(0.5), alone=True),
}


@pytest.mark.parametrize("label", get_args(VerdictLabel))
def test_every_label_can_be_had(label) -> None:
    assert EXAMPLES[label].label == label


@pytest.mark.parametrize("label", get_args(VerdictLabel))
def test_every_label_says_why_with_numbers(label) -> None:
    v = EXAMPLES[label]
    assert v.because
    assert re.search(r"\d\.\d", " ".join(v.because))
    assert v.thresholds == Thresholds().model_dump()


LEVEL, HIDDEN = "at the level of a retrained model", "hidden at the output only"
SHORT, BEYOND = "short of a retrained model", "beyond a retrained model"
NARROW = {(n, "masked"): 0.34 for n in RECOVERY}  # a gap of 0.12 in sum, less than small_gap

SIDES = {
    "damage": (0.1, lambda d: verdict({("retain_drop_masked", "unlearned"): 0.1 + d}), LEVEL, "model damaged"),
    "forgotten": (0.05, lambda d: verdict({("forget_accuracy", "unlearned"): 0.05 + d}), LEVEL, "not forgotten"),
    "unchanged": (0.99, lambda d: verdict({("feature_cka", "unlearned"): 0.99 + d}), LEVEL, HIDDEN),
    "closed_least": (0.2, lambda d: verdict(own=closing(0.2 - d)), SHORT, HIDDEN),
    "closed_level": (0.7, lambda d: verdict(own=closing(0.7 - d)), LEVEL, SHORT),
    "closed_beyond": (2.2, lambda d: verdict(own=closing(2.2 + d)), LEVEL, BEYOND),
    "apart": (0.4, lambda d: verdict(own=(0.7 + d, 0.3, 0.0)), LEVEL, SHORT),
    "tolerance": (0.1, lambda d: verdict(NARROW, tuple(0.3 + (0.1 + d) / 3 for _ in RECOVERY)), LEVEL, SHORT),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDES)
def test_every_threshold_on_both_sides(name) -> None:
    value, make, below, above = SIDES[name]
    assert getattr(Thresholds(), name) == value
    assert make(-STEP).label == below
    assert make(STEP).label == above


def test_small_gap_on_both_sides() -> None:
    # 0.09 in sum above a retrained model: within the tolerance; of a wider gap too little is closed
    def judged(gap: float) -> str:
        masked = {(n, "masked"): 0.3 + gap / 3 for n in RECOVERY}
        return verdict(masked, (0.33, 0.33, 0.33)).label

    assert Thresholds().small_gap == 0.15
    assert judged(0.15 - STEP) == LEVEL
    assert judged(0.15 + STEP) == SHORT  # 1 - 0.09/0.15 = 40 % is closed


def test_both_sides_of_the_tolerance() -> None:
    assert verdict(NARROW, (0.26, 0.26, 0.26)).label == BEYOND
    assert verdict(NARROW, (0.27, 0.27, 0.27)).label == LEVEL
    assert verdict(NARROW, (0.34, 0.34, 0.34)).label == SHORT


def test_few_images_widen_the_level() -> None:
    assert verdict(own=closing(0.46), n=199).label == LEVEL
    assert verdict(own=closing(0.44), n=199).label == SHORT
    assert verdict(own=closing(0.5), n=200).label == SHORT


def test_few_images_widen_how_far_apart_one_measure_may_be() -> None:
    assert verdict(own=(0.3, 0.79, 0.0), n=199).label == LEVEL
    assert verdict(own=(0.3, 0.81, 0.0), n=199).label == SHORT
    assert verdict(own=(0.3, 0.79, 0.0), n=200).label == SHORT
    assert verdict(own=(0.3, 0.79, 0.0), n=199, apart_few=0.4).label == SHORT


def test_the_neighbours_may_be_apart_no_more_than_the_probe_and_the_prototype_may() -> None:
    assert verdict(own=(0.3, 0.71, 0.0)).label == SHORT
    assert verdict(own=(0.0, 0.3, 0.71)).label == LEVEL


@pytest.mark.parametrize(
    "name", ["damage", "forgotten", "unchanged", "closed_least", "closed_level", "closed_beyond", "apart", "tolerance"]
)
def test_thresholds_can_be_set(name) -> None:
    strict_or_lax = {
        "damage": ({("retain_drop_masked", "unlearned"): 0.2}, RETRAINED, 0.3, "model damaged", LEVEL),
        "forgotten": ({("forget_accuracy", "unlearned"): 0.2}, RETRAINED, 0.3, "not forgotten", LEVEL),
        "unchanged": ({("feature_cka", "unlearned"): 0.995}, RETRAINED, 0.999, HIDDEN, LEVEL),
        "closed_least": ({}, closing(0.3), 0.4, SHORT, HIDDEN),
        "closed_level": ({}, closing(0.8), 0.9, LEVEL, SHORT),
        "closed_beyond": ({}, closing(2.0), 1.5, LEVEL, BEYOND),
        "apart": ({}, (0.5, 0.3, 0.3), 0.1, LEVEL, SHORT),
        "tolerance": (NARROW, (0.34, 0.34, 0.34), 0.2, SHORT, LEVEL),
    }  # fmt: skip
    values, own, limit, before, after = strict_or_lax[name]
    assert verdict(values, own).label == before
    changed = verdict(values, own, **{name: limit})
    assert changed.label == after
    assert changed.thresholds[name] == limit


def test_a_retrained_model_that_takes_images_for_the_class_raises_what_is_allowed() -> None:
    values = {("forget_accuracy", "unlearned"): 0.2, ("forget_accuracy", "retrained"): 0.16}
    assert verdict(values).label == LEVEL
    assert verdict(values, alone=True).label == "not forgotten"


def test_damage_comes_before_everything_and_forgetting_before_features() -> None:
    all_at_once = {
        ("retain_drop_masked", "unlearned"): 0.5,
        ("forget_accuracy", "unlearned"): 0.9,
        ("feature_cka", "unlearned"): 1.0,
    }
    assert verdict(all_at_once).label == "model damaged"
    del all_at_once["retain_drop_masked", "unlearned"]
    assert verdict(all_at_once).label == "not forgotten"


def test_without_a_retrained_model_only_what_is_certain_is_said() -> None:
    assert verdict(own=MASKED, alone=True).label == HIDDEN
    assert verdict(own=tuple(0.9 * v + STEP for v in MASKED), alone=True).label == HIDDEN
    assert verdict(own=tuple(0.9 * v - STEP for v in MASKED), alone=True).label == "undecided (no retrained model)"
    assert verdict(own=(0.0, 0.0, 0.0), alone=True).label == "undecided (no retrained model)"
    assert "needed to say more" in verdict(alone=True).because[-1]


def test_without_features_to_read_nothing_is_decided() -> None:
    nothing = {(n, s): None for n in RECOVERY for s in ("unlearned", "masked", "retrained")}
    assert verdict(nothing).label == "undecided (no retrained model)"


def test_without_features_to_read_it_does_not_ask_for_what_was_given() -> None:
    nothing = {(n, s): None for n in RECOVERY for s in ("unlearned", "masked", "retrained")}
    assert not any("A model trained without the class is needed" in line for line in verdict(nothing).because)


def test_what_one_measure_lacks_is_left_out_of_all_sums() -> None:
    lost = {("prototype_attack_accuracy", s): None for s in ("unlearned", "masked", "retrained")}
    assert verdict(lost, closing(0.3)).label == SHORT
    assert verdict(lost).label == LEVEL


@pytest.mark.parametrize("name", ["closed", "damage", "tolerance"])
def test_thresholds_out_of_range_or_unknown_are_refused(name) -> None:
    with pytest.raises(ValueError, match=name):
        Thresholds(**{name: -1.0})


# flags


def test_nothing_is_flagged_of_a_model_like_a_retrained_one() -> None:
    assert (
        verdict(
            {("class_mia_gap", "unlearned"): 0.0, ("mia_auc", "unlearned"): 0.5, ("mia_auc", "retrained"): 0.5}
        ).flags
        == ()
    )


@pytest.mark.parametrize("name", RECOVERY)
def test_flag_below_the_retrained_model(name) -> None:
    (flag,) = verdict({(name, "unlearned"): (0.2, 0.15, 0.289)}).flags  # the retrained one's low is 0.29
    assert flag.startswith(f"{name} is below the retrained model's")
    assert "not better by itself" in flag
    assert verdict({(name, "unlearned"): (0.2, 0.15, 0.291)}).flags == ()


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        ((0.1, 0.001, 0.2), "give the class away more"),
        ((0.1, -0.001, 0.2), None),
        ((-0.1, -0.2, -0.001), "tell the class from its neighbours less"),
        ((-0.1, -0.2, 0.001), None),
    ],
)
def test_flag_class_membership_in_both_directions(gap, says) -> None:
    flags = verdict({("class_mia_gap", "unlearned"): gap}).flags
    assert len(flags) == (says is not None)
    assert says is None or says in flags[0]


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [
        ((0.3, 0.2, 0.4), None, "below chance"),
        ((0.3, 0.2, 0.4), (0.5, 0.45, 0.55), "below chance"),
        ((0.3, 0.2, 0.4), (0.35, 0.25, 0.45), None),  # no further below than a retrained model's
        ((0.45, 0.4, 0.501), None, None),
        ((0.7, 0.6, 0.8), None, "above chance"),
        ((0.7, 0.6, 0.8), (0.5, 0.45, 0.55), "above chance"),
        ((0.7, 0.6, 0.8), (0.6, 0.5, 0.7), None),
        ((0.55, 0.499, 0.6), None, None),
    ],
)
def test_flag_membership_in_both_directions(own, other, says) -> None:
    values = {("mia_auc", "unlearned"): own} | ({} if other is None else {("mia_auc", "retrained"): other})
    flags = verdict(values).flags
    assert len(flags) == (says is not None)
    assert says is None or says in flags[0]


def test_several_flags_are_all_given() -> None:
    values = {(n, "unlearned"): 0.1 for n in RECOVERY} | {
        ("class_mia_gap", "unlearned"): -0.2,
        ("mia_auc", "unlearned"): 0.2,
    }
    assert len(verdict(values).flags) == 5


def test_no_label_or_reason_promises_a_guarantee() -> None:
    text = " ".join(" ".join([v.label, *v.because, *v.flags]) for v in EXAMPLES.values()).lower()
    assert not re.search(r"guarante|certif|prove|complete(ly)? (erased|removed)|gdpr", text)
