"""judge(): all labels for each holder, every threshold on both sides, every flag, from hand-made measurements."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from statistics import NormalDist
from types import MappingProxyType
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unhot.evaluation.catalogue import measures
from unhot.evaluation.verdict import HOLDERS, MEANINGS, Thresholds, flag, judge, reason
from unhot.records.audit import AuditInputs, AuditRecord, Flag, Measurement, ReasonCode, Subject, Verdict, VerdictLabel
from unhot.records.measure import Decides, Holder, Measure
from unhot.report.sentences import sentences

HIDDEN, SHORT = "hidden at the output only", "short of a retrained model"
LEVEL, BEYOND = "at the level of a retrained model", "beyond a retrained model"
UNDECIDED = "undecided"
BETTER = (HIDDEN, SHORT, LEVEL, BEYOND)  # from the least to the most that was forgotten

SPREAD, STEP = 0.04, 1e-4
NOISE = 2.5 * SPREAD * math.sqrt(2)  # of numbers without an interval, beside one retrained model

Value = float | tuple[float, float] | list[float] | None  # a mean with half of its interval, or of each retrained model
Values = Mapping[tuple[str, Subject], Value]


def deciding(name: str, holder: Holder, similarity: bool = False) -> Measure:
    part = Decides(holder=holder, spread=SPREAD, similarity=similarity)
    return Measure(name=name, title=name, group="Attacks", sentence="It is.", low=0, high=1, decides=part)


RECOVERIES: dict[str, Holder] = {
    "said": "outputs",
    "said_twice": "outputs",
    "held": "features",
    "held_twice": "features",
    "deep": "weights",
    "deep_twice": "weights",
}
SIMILAR: dict[str, Holder] = {"said_r2": "outputs", "held_r2": "features"}
DECIDING = (
    *(deciding(n, h) for n, h in RECOVERIES.items()),
    *(deciding(n, h, similarity=True) for n, h in SIMILAR.items()),
    Measure(name="other", title="Other", group="Attacks", sentence="It decides nothing."),
)
OF: dict[Holder, tuple[str, str]] = {  # a recovery and a similarity that decide for a holder
    "outputs": ("said", "said_r2"),
    "features": ("held", "held_r2"),
    "weights": ("deep", "held_r2"),
}
USUAL: Values = {
    ("retain_drop_masked", "unlearned"): 0.0,
    ("forget_accuracy", "unlearned"): 0.0,
    **{(n, "masked"): 0.9 for n in RECOVERIES},
    **{(n, s): 0.3 for n in RECOVERIES for s in ("unlearned", "retrained")},
    **{(n, "masked"): 1.0 for n in SIMILAR},
    **{(n, s): 0.4 for n in SIMILAR for s in ("unlearned", "retrained")},
}
MASKED: Values = {(n, "unlearned"): USUAL[n, "masked"] for n in (*RECOVERIES, *SIMILAR)}
ALONE: Values = {(n, "retrained"): None for n in (*RECOVERIES, *SIMILAR)}
NO_RECOVERY: Values = {(n, s): 0.3 for n in RECOVERIES for s in ("unlearned", "masked", "retrained")}  # tells anything


def measurement(name: str, subject: Subject, value: Value) -> Measurement:
    if value is None:
        return Measurement(name=name, subject=subject, split="test", absent_because="not given")
    if isinstance(value, list):  # an interval as that of the auditor: within all of theirs, which are points
        middle, ends, runs = sum(value) / len(value), (min(value), max(value)), tuple(value)
    else:
        middle, half = value if isinstance(value, tuple) else (value, 0.0)
        ends, runs = (middle - half, middle + half), ()
    return Measurement(
        name=name, subject=subject, split="test", value=middle, low=ends[0], high=ends[1], n=9, runs=runs
    )


def verdict(*values: Values, holder: Holder = "features", unused: int = 0, flags: Any = (), **limits: float) -> Verdict:
    """Judge a model that gives away what a retrained one does, but for what is given."""
    table = dict(USUAL)
    for changes in values:
        table |= changes

    def find(name: str, subject: Subject) -> Measurement:
        assert name != "other", "what decides nothing is not asked for"
        return measurement(name, subject, table.get((name, subject)))

    doubts = [reason("unused_weights", count=unused)] if unused else []
    found = judge(find, DECIDING, Thresholds(**limits), holder, flags, doubts)
    assert tuple(found.holders) == get_args(Holder)
    assert (found.label, found.because) == (found.holders[holder].label, found.holders[holder].because)
    assert found.thresholds == Thresholds(**limits).model_dump()
    return found


def label(*values: Values, holder: Holder = "features", **more: Any) -> VerdictLabel:
    return verdict(*values, holder=holder, **more).label


def own(value: Value, *names: str) -> Values:
    return {(n, "unlearned"): value for n in names or RECOVERIES}


def said(found: Verdict, *values: Values) -> list[str]:
    """Return the reasons of a verdict and then its flags, in words."""
    table = dict(USUAL)
    for changes in values:
        table |= changes
    measured = tuple(measurement(n, s, v) for (n, s), v in table.items())
    inputs = AuditInputs.model_construct(images={})
    return sentences(AuditRecord.model_construct(verdict=found, measurements=measured, inputs=inputs))


def codes(found: Verdict) -> list[str]:
    return [r.code for r in found.because]


EXAMPLES: dict[VerdictLabel, Values] = {
    "model damaged": {("retain_drop_masked", "unlearned"): 0.5},
    "not forgotten": {("forget_accuracy", "unlearned"): 0.9},
    "hidden at the output only": MASKED,
    "short of a retrained model": own(0.6),
    "at the level of a retrained model": {},
    "beyond a retrained model": own(0.1),
    "undecided": {**own(0.6), **ALONE},
}


@pytest.mark.parametrize("holder", get_args(Holder))
@pytest.mark.parametrize("name", get_args(VerdictLabel))
def test_every_label_can_be_had_by_every_holder(name: VerdictLabel, holder: Holder) -> None:
    found = verdict(EXAMPLES[name], holder=holder)
    assert (found.label, found.holder) == (name, holder)
    assert holder in MEANINGS[name].of(holder) or name in ("not forgotten", "model damaged")
    lines = said(found, EXAMPLES[name])
    assert len(lines) == len(found.because) > 0
    if name != UNDECIDED:
        assert re.search(r"\d\.\d", " ".join(lines))


ELSEWHERE = {"unseen_weights", "original_inside"}  # test_audit_checks.py
OLD = {"features_unchanged", "nothing_to_read", "nearly_all_readable", "small_gap", "gap_closed", "apart"}


def test_every_reason_is_given_by_some_model() -> None:
    given = [verdict(v) for v in EXAMPLES.values()]
    given += [verdict(NO_RECOVERY), verdict({k: None for k in USUAL if k[0] in (*RECOVERIES, *SIMILAR)})]
    given += [verdict(MASKED, own(0.4, *SIMILAR)), verdict(unused=9)]
    found = {r.code for v in given for one in v.holders.values() for r in one.because}
    assert found == set(get_args(ReasonCode)) - OLD - ELSEWHERE


def test_reasons_name_what_they_are_about() -> None:
    found = verdict(own(0.6, "held"), own(0.7, "held_twice"))
    first, second, why = found.because
    assert [(k.name, k.subject) for k in first.measurements] == [
        ("held", "unlearned"),
        ("held", "masked"),
        ("held", "retrained"),
    ]
    assert {k.name for k in second.measurements} == {"held_twice"}
    assert why.code == "more_left"
    assert [k.name for k in why.measurements] == ["held", "held_twice"]
    (damaged,) = verdict(EXAMPLES["model damaged"]).because
    assert (damaged.code, damaged.numbers, damaged.measurements[0].name) == (
        "damaged",
        {"limit": 0.1},
        "retain_drop_masked",
    )


# thresholds


@pytest.mark.parametrize("holder", get_args(Holder))
def test_every_threshold_on_both_sides(holder: Holder) -> None:
    recovery, similarity = OF[holder]

    def sides(at: float, name: str, besides: Values = MappingProxyType({})) -> tuple[str, str]:
        return (
            label(own(at - STEP, name), besides, holder=holder),
            label(own(at + STEP, name), besides, holder=holder),
        )

    assert Thresholds().model_dump() == {
        "forgotten": 0.05,
        "damage": 0.1,
        "unchanged": 0.98,
        "closed": 0.2,
        "errors": 2.5,
    }
    assert sides(0.1, "retain_drop_masked") == (LEVEL, "model damaged")
    assert sides(0.05, "forget_accuracy") == (LEVEL, "not forgotten")
    assert sides(0.05, "worst_forget_accuracy") == (LEVEL, "not forgotten")
    assert sides(0.98, similarity, {(similarity, "retrained"): None}) == (LEVEL, HIDDEN)
    assert sides(1 - 0.2 * 0.6, similarity, own(0.7, *RECOVERIES)) == (SHORT, HIDDEN)
    assert sides(0.3 + NOISE, recovery) == (LEVEL, SHORT)
    assert sides(0.3 - NOISE, recovery) == (BEYOND, LEVEL)
    assert sides(0.9 - 0.2 * 0.6, recovery) == (SHORT, HIDDEN)


@pytest.mark.parametrize(
    ("name", "limit", "values", "before", "after"),
    [
        ("damage", 0.3, {("retain_drop_masked", "unlearned"): 0.2}, "model damaged", LEVEL),
        ("forgotten", 0.3, {("forget_accuracy", "unlearned"): 0.2}, "not forgotten", LEVEL),
        ("unchanged", 0.8, own(0.85, "held_r2"), LEVEL, HIDDEN),
        ("closed", 0.6, own(0.6, "held"), SHORT, HIDDEN),
        ("errors", 6.0, own(0.6, "held"), SHORT, LEVEL),
    ],
)
def test_thresholds_can_be_set(name: str, limit: float, values: Values, before: str, after: str) -> None:
    assert label(values) == before
    assert label(values, **{name: limit}) == after


@pytest.mark.parametrize(
    "limits", [{"closed": -1.0}, {"closed": 1.1}, {"damage": -1.0}, {"unchanged": 1.1}, {"errors": -1.0}, {"apart": 1}]
)
def test_thresholds_out_of_range_or_unknown_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        Thresholds(**limits)


@pytest.mark.parametrize("holder", get_args(Holder))
def test_damage_comes_before_everything_and_forgetting_before_what_is_held(holder: Holder) -> None:
    gone = {("forget_accuracy", "unlearned"): 0.9}
    assert label(MASKED, gone, EXAMPLES["model damaged"], holder=holder) == "model damaged"
    assert label(MASKED, gone, holder=holder) == "not forgotten"


# what is noise


def noise(*errors: float, spread: float = SPREAD, references: int = 1) -> float:
    """That of halves of intervals, of the unlearned model and then of the mean of retrained ones."""
    z = NormalDist().inv_cdf(0.975)
    return 2.5 * math.sqrt(sum((e / z) ** 2 for e in errors) + spread**2 * (1 + 1 / references))


def just(at: float, below: str, above: str, *more: Values, half: float = 0.0) -> None:
    assert label(own((at - STEP, half), "held"), *more) == below
    assert label(own((at + STEP, half), "held"), *more) == above


def test_wide_intervals_widen_what_counts_as_the_same() -> None:
    just(0.3 + noise(0.1), LEVEL, SHORT, half=0.1)
    wide: Values = {("held", "retrained"): (0.3, 0.05)}
    just(0.3 + noise(0.1, 0.05), LEVEL, SHORT, wide, half=0.1)
    just(0.3 - noise(0.0, 0.05), BEYOND, LEVEL, wide)


def test_several_references_that_agree_bound_more_tightly_and_others_less() -> None:
    alike: Values = {("held", "retrained"): [0.29, 0.3, 0.31]}
    just(0.3 + noise(references=3), LEVEL, SHORT, alike)
    apart: Values = {("held", "retrained"): [0.2, 0.3, 0.4]}  # their standard deviation is 0.1
    just(0.3 + noise(spread=0.1, references=3), LEVEL, SHORT, apart)
    just(0.3 - noise(spread=0.1, references=3), BEYOND, LEVEL, apart)


def test_what_images_explain_of_the_differences_of_references_is_not_counted_again() -> None:
    """Two at 0.2 and 0.4, each with an interval of 0.1 on either side."""

    def find(name: str, subject: Subject) -> Measurement:
        found = measurement(name, subject, USUAL.get((name, subject)))
        if name != "held" or subject == "masked":
            return found
        if subject == "unlearned":
            return measurement(name, subject, mine)
        return found.model_copy(update={"value": 0.3, "low": 0.1, "high": 0.5, "runs": (0.2, 0.4)})

    error = 0.1 / NormalDist().inv_cdf(0.975)
    allowed = 2.5 * math.sqrt(error**2 / 2 + (0.02 - error**2) * 1.5)
    for step, wanted in ((-STEP, LEVEL), (STEP, SHORT)):
        mine = 0.3 + allowed + step
        assert judge(find, DECIDING, Thresholds()).label == wanted


def test_a_recovery_counts_from_where_it_tells_the_masked_original_from_a_retrained_model() -> None:
    for step, wanted in ((-STEP, LEVEL), (STEP, HIDDEN)):
        near: Values = {("held", "masked"): 0.3 + NOISE + step, ("held", "unlearned"): 0.9}
        assert label(near) == wanted


# gaps are compared one by one


@pytest.mark.parametrize("holder", get_args(Holder))
def test_overshoot_on_one_measure_does_not_pay_for_another(holder: Holder) -> None:
    first, second = OF[holder][0], f"{OF[holder][0]}_twice"
    assert label(own(0.6, first), own(0.0, second), holder=holder) == SHORT
    assert label(own(0.9, first), own(0.0, second), holder=holder) == HIDDEN
    assert label(own(0.0, first), holder=holder) == BEYOND
    assert label(own(0.6, first), own(0.85, second), holder=holder) == HIDDEN


def test_what_is_less_than_noise_does_not_add_up() -> None:
    assert label(own(0.3 + NOISE - STEP)) == LEVEL
    assert label(own(0.3 - NOISE + STEP)) == LEVEL


def test_what_another_holder_has_decides_nothing_for_those_who_have_less() -> None:
    found = verdict(own(0.9, "deep")).holders
    assert {h: c.label for h, c in found.items()} == {"outputs": LEVEL, "features": LEVEL, "weights": HIDDEN}
    found = verdict(own(0.6, "held")).holders
    assert {h: c.label for h, c in found.items()} == {"outputs": LEVEL, "features": SHORT, "weights": SHORT}
    found = verdict(own(0.9, "said")).holders
    assert {h: c.label for h, c in found.items()} == {"outputs": HIDDEN, "features": LEVEL, "weights": LEVEL}


def test_what_the_features_say_by_similarity_holds_for_the_weights_too() -> None:
    """Where only recovery by other layers tells the masked original from a retrained model."""
    near: Values = {(n, s): 0.3 for n in ("held", "held_twice") for s in ("unlearned", "masked", "retrained")}
    for similar, wanted in ((0.7, LEVEL), (0.95, HIDDEN)):
        found = verdict(near, own(similar, "held_r2")).holders
        assert found["features"].label == found["weights"].label == wanted


# similarity


def test_similarity_decides_alone_where_no_recovery_tells_masked_from_retrained() -> None:
    assert label(own(0.7, *SIMILAR)) == LEVEL
    for similar, wanted in ((0.4, LEVEL), (0.7, LEVEL), (0.9, HIDDEN), (0.0, LEVEL)):
        found = verdict(NO_RECOVERY, own(similar, *SIMILAR))
        assert {c.label for c in found.holders.values()} == {wanted}
        assert codes(found)[0] == "not_told_apart"
    lines = said(verdict(NO_RECOVERY, own(0.7, *SIMILAR)), NO_RECOVERY, own(0.7, *SIMILAR))
    assert lines[0].startswith("No recovery tells the masked original from a retrained model")
    assert "held_r2 (unlearned) 0.7" in lines[1]


@pytest.mark.parametrize("holder", get_args(Holder))
def test_a_similarity_that_closes_less_than_a_fifth_hides_the_class_unless_a_recovery_closes_half(
    holder: Holder,
) -> None:
    similar = OF[holder][1]
    few: Values = {(n, "unlearned"): (0.65, 0.3) for n in RECOVERIES}  # not told apart from the retrained model's 0.3
    assert label(few, own(0.88 - STEP, similar), holder=holder) == LEVEL
    found = verdict(few, own(0.88 + STEP, similar)).holders[holder]
    assert found.label == HIDDEN
    assert [r.code for r in found.because] == ["measured", "nearly_all_left"]
    half: Values = {(n, "unlearned"): (0.6 - STEP, 0.3) for n in ("said", "held", "deep")}
    assert label(few, half, own(0.88 + STEP, similar), holder=holder) == LEVEL
    apart: Values = {(similar, "retrained"): (0.4, 0.6)}  # an interval that reaches the masked original's
    assert label(few, own(0.95, similar), apart, holder=holder) == LEVEL


@pytest.mark.parametrize("holder", get_args(Holder))
def test_unchanged_features_are_hidden_whatever_is_recovered(holder: Holder) -> None:
    assert label(own(0.99, OF[holder][1]), own(0.0), holder=holder) == HIDDEN
    assert codes(verdict(own(0.99, OF[holder][1]), own(0.0), holder=holder)) == ["unchanged"]


def test_a_similarity_that_the_masked_original_lacks_says_nothing_is_unchanged() -> None:
    def of(masked: float) -> Values:
        return {("held_r2", "masked"): masked, ("held_r2", "unlearned"): masked}

    assert label(of(0.5)) == HIDDEN
    assert label(of(0.5 - STEP)) == LEVEL


def test_where_neither_recovery_nor_similarity_tells_nothing_is_decided() -> None:
    blind: Values = {(n, s): 0.4 for n in SIMILAR for s in ("unlearned", "masked", "retrained")}
    found = verdict(NO_RECOVERY, blind)
    assert {c.label for c in found.holders.values()} == {UNDECIDED}
    assert codes(found) == ["not_told_apart"]


# what is absent


@pytest.mark.parametrize("holder", get_args(Holder))
def test_without_a_retrained_model_only_what_is_certain_is_said(holder: Holder) -> None:
    assert label(MASKED, ALONE, holder=holder) == HIDDEN
    assert label(own(0.98 - STEP, *SIMILAR), ALONE, holder=holder) == UNDECIDED
    assert label(own(0.9), ALONE, holder=holder) == UNDECIDED
    assert label(own(0.0), ALONE, holder=holder) == UNDECIDED
    found = verdict(ALONE, holder=holder)
    assert codes(found) == ["no_retrained_model"]
    (strongest,) = found.because[0].measurements
    assert strongest.subject == "unlearned"
    assert "needed to say more" in said(found, ALONE)[-1]


def test_where_nothing_is_measured_nothing_is_decided_and_no_more_is_asked_for() -> None:
    nothing: Values = {k: None for k in USUAL if k[0] in (*RECOVERIES, *SIMILAR)}
    found = verdict(nothing)
    assert {c.label for c in found.holders.values()} == {UNDECIDED}
    assert codes(found) == ["nothing_measured"]
    assert not any("A model trained without the class is needed" in line for line in said(found, nothing))


def test_what_is_absent_is_left_out() -> None:
    lost: Values = {("held_twice", s): None for s in ("unlearned", "masked", "retrained")}
    assert label(lost, own(0.6, "held")) == SHORT
    assert label(lost) == LEVEL
    assert label({("held_twice", "retrained"): None}, own(0.9, "held_twice")) == LEVEL
    without: Values = {(n, s): None for n in ("held_r2",) for s in ("unlearned", "masked", "retrained")}
    assert label(without, MASKED | without) == HIDDEN


# numbers without effect


def test_unused_weights_leave_undecided_what_is_not_bad_anyway() -> None:
    for values in ({}, own(0.6), own(0.0), ALONE):
        found = verdict(values, unused=1_234)
        plain = verdict(values)
        assert (found.holders["outputs"], found.holders["features"]) == (
            plain.holders["outputs"],
            plain.holders["features"],
        )
        held = found.holders["weights"]
        assert (held.label, held.because[0].code) == (UNDECIDED, "unused_weights")
        assert held.because[1:] == plain.holders["weights"].because
    assert "1,234 of the model's parameters are unused" in said(verdict(unused=1_234, holder="weights"))[0]
    for name in ("hidden at the output only", "not forgotten", "model damaged"):
        assert label(EXAMPLES[name], unused=1_234, holder="weights") == name


# for all numbers

share = st.floats(0, 1)
half = st.floats(0, 0.2)
three = st.fixed_dictionaries({n: st.tuples(share, share, share, half, half, half) for n in (*RECOVERIES, *SIMILAR)})


def drawn(numbers: dict[str, tuple[float, ...]]) -> dict[tuple[str, Subject], Value]:
    subjects: tuple[Subject, ...] = ("unlearned", "masked", "retrained")
    return {(n, s): (v[i], v[i + 3]) for n, v in numbers.items() for i, s in enumerate(subjects)}


@given(three, st.booleans())
def test_the_masked_original_is_always_hidden(numbers: dict[str, tuple[float, ...]], alone: bool) -> None:
    """Undecided at best, if nothing tells it from a retrained model."""
    table = drawn(numbers) | (dict(ALONE) if alone else {})
    table |= {(n, "unlearned"): table[n, "masked"] for n in numbers}
    for name, has in HOLDERS.items():
        found = label(table, holder=name)
        assert found in (HIDDEN, UNDECIDED)
        informative = any(numbers[n][1] >= 0.5 for n, h in SIMILAR.items() if h in has)
        assert found == HIDDEN or not informative


@given(three, st.sampled_from([*RECOVERIES, *SIMILAR]), share, st.integers(0, 9))
def test_more_that_is_recovered_never_gives_a_better_label(
    numbers: dict[str, tuple[float, ...]], name: str, more: float, unused: int
) -> None:
    table = drawn(numbers)
    before, width = numbers[name][0], numbers[name][3]
    assume(more > before)
    first = verdict(table, unused=unused).holders
    second = verdict(table | own((more, width), name), unused=unused).holders
    for holder in HOLDERS:
        old, new = first[holder].label, second[holder].label
        if UNDECIDED in (old, new):
            assert old == UNDECIDED
            assert new in (UNDECIDED, HIDDEN)
        else:
            assert BETTER.index(new) <= BETTER.index(old)


@given(three)
def test_who_holds_the_weights_is_never_told_of_less_than_who_holds_the_features(
    numbers: dict[str, tuple[float, ...]],
) -> None:
    found = verdict(drawn(numbers)).holders
    features, weights = found["features"].label, found["weights"].label
    if features in (HIDDEN, SHORT):
        assert BETTER.index(weights) <= BETTER.index(features)


def test_every_holder_has_measures_that_decide_and_each_is_of_one() -> None:
    registered = [m for m in measures().values() if m.decides is not None]
    assert {m.decides.holder for m in registered} == set(get_args(Holder))
    assert all(m.higher_is_better is False and m.bounds == (0, 1) for m in registered)
    assert {m.decides.holder for m in registered if m.decides.similarity} == set(get_args(Holder))


# flags


def flagged(values: Values) -> list[str]:
    found = verdict(values)
    return said(found, values)[len(found.because) :]


def test_nothing_is_flagged_of_a_model_like_a_retrained_one() -> None:
    same: Values = {
        ("class_mia_gap", "unlearned"): 0.0,
        ("mia_auc", "unlearned"): 0.5,
        ("mia_auc", "retrained"): 0.5,
    }
    assert flagged(same) == []


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        ((0.1, 0.099), "give the class away more"),
        ((0.1, 0.101), None),
        ((-0.1, 0.099), "tell the class from its neighbours less"),
        ((-0.1, 0.101), None),
    ],
)
def test_flag_class_membership_in_both_directions(gap: Value, says: str | None) -> None:
    flags = flagged({("class_mia_gap", "unlearned"): gap})
    assert len(flags) == (says is not None)
    assert says is None or says in flags[0]


@pytest.mark.parametrize(
    ("mine", "other", "says"),
    [
        ((0.3, 0.1), None, "below chance"),
        ((0.3, 0.1), (0.5, 0.05), "below chance"),
        ((0.3, 0.1), (0.35, 0.1), None),  # no further below than a retrained model's
        ((0.45, 0.051), None, None),
        ((0.7, 0.1), None, "above chance"),
        ((0.7, 0.1), (0.5, 0.05), "above chance"),
        ((0.7, 0.1), (0.6, 0.1), None),
        ((0.55, 0.051), None, None),
    ],
)
def test_flag_membership_in_both_directions(mine: Value, other: Value, says: str | None) -> None:
    flags = flagged({("mia_auc", "unlearned"): mine, ("mia_auc", "retrained"): other})
    assert len(flags) == (says is not None)
    assert says is None or says in flags[0]


def test_flags_from_elsewhere_come_first_and_all_are_given() -> None:
    values: Values = {("class_mia_gap", "unlearned"): -0.2, ("mia_auc", "unlearned"): 0.2}
    other: Flag = flag("reference_architecture")
    found = verdict(values, flags=(other,))
    assert [f.code for f in found.flags] == ["reference_architecture", "class_hidden", "members_below_chance"]
    assert found.label == verdict(values).label


def test_no_label_or_reason_promises_a_guarantee() -> None:
    text = " ".join(
        " ".join([name, MEANINGS[name].text, *said(verdict(values), values)]) for name, values in EXAMPLES.items()
    )
    assert not re.search(r"guarante|certif|prove|complete(ly)? (erased|removed)|gdpr", text.lower())
