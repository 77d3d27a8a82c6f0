"""Intervals: they contain the value, stay in range, shrink with more images, and cover what they promise to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm
from sklearn.metrics import roc_auc_score

from unhot.evaluation.auditor import _measurement
from unhot.evaluation.stats import Estimate, area, averaged, mean, paired_drop, proportion
from unhot.records.measure import Measure

X = Measure(name="x", title="X", group="Output", sentence="X.", higher_is_better=True)
hits = st.lists(st.booleans(), min_size=1, max_size=200).map(torch.tensor)
reals = st.floats(-100, 100, allow_nan=False, width=32)


def inside(e: Estimate) -> bool:
    return e.low <= e.value <= e.high


def width(e: Estimate) -> float:
    return e.high - e.low


@given(hits)
def test_proportion_is_the_share_inside_its_interval(h) -> None:
    e = proportion(h)
    assert e.value == pytest.approx(sum(h.tolist()) / len(h))
    assert inside(e)
    assert 0 <= e.low < e.high <= 1
    assert e.n == len(h)


def test_proportion_has_the_wilson_interval_by_the_formula() -> None:
    n, k, z = 52, 49, norm.ppf(0.975)
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    e = proportion(torch.arange(n) < k)
    assert e[1:3] == pytest.approx((middle - spread, middle + spread))


@given(hits, st.integers(2, 9))
def test_proportion_shrinks_with_more_images(h, times) -> None:
    assert width(proportion(h.repeat(times))) < width(proportion(h))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=100))
def test_paired_drop_is_the_difference_of_shares(pairs) -> None:
    before, after = torch.tensor(pairs).T
    e = paired_drop(before, after)
    assert e.value == pytest.approx(sum(before.tolist()) / len(pairs) - sum(after.tolist()) / len(pairs))
    assert inside(e)
    assert e.n == len(pairs)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.integers(2, 9))
def test_paired_drop_shrinks_with_more_images_and_turns_with_the_sides(pairs, times) -> None:
    before, after = torch.tensor(pairs).T
    e, back = paired_drop(before, after), paired_drop(after, before)
    assert width(paired_drop(before.repeat(times), after.repeat(times))) < width(e)
    assert (back.value, back.low, back.high) == pytest.approx((-e.value, -e.high, -e.low))


def test_paired_drop_by_hand() -> None:
    before = torch.tensor([1, 1, 1, 1, 0, 0, 1, 1]).bool()
    after = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1]).bool()
    e = paired_drop(before, after)  # 3 lost, 1 gained, n = 8: middle 2/10, variance (5 - 4/10)/100
    spread = norm.ppf(0.975) * math.sqrt(4.6) / 10
    assert e == pytest.approx((0.25, 0.2 - spread, 0.2 + spread, 8))


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("lost", [True, False])
def test_paired_drop_stays_in_range(n, lost) -> None:
    before = torch.full((n,), lost)
    e = paired_drop(before, ~before)
    assert max(-e.low, e.high) <= 1


def coverage(draw, truth: float, tries: int = 400) -> float:
    return sum(e.low <= truth <= e.high for e in (draw() for _ in range(tries))) / tries


@pytest.mark.parametrize(("lost", "gained", "n"), [(0.02, 0.0, 80), (0.1, 0.05, 40), (0.0, 0.0, 30), (0.3, 0.1, 300)])
def test_paired_drop_covers_the_truth(lost, gained, n) -> None:
    rng = np.random.default_rng(0)

    def draw() -> Estimate:
        kind = rng.choice(3, size=n, p=[lost, gained, 1 - lost - gained])
        return paired_drop(torch.from_numpy(kind != 1), torch.from_numpy(kind != 0))

    assert coverage(draw, lost - gained) >= 0.92


@given(st.lists(reals, min_size=1, max_size=50))
def test_mean_is_the_mean_inside_its_interval(values) -> None:
    e = mean(np.array(values))
    assert e.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert e.low - 1e-9 <= e.value <= e.high + 1e-9


def test_mean_has_students_interval_cut_to_the_range() -> None:
    values = np.array([0.2, 0.4, 0.9])
    spread = 4.302652729911275 * values.std(ddof=1) / math.sqrt(3)
    assert mean(values) == pytest.approx((0.5, 0.5 - spread, 0.5 + spread, 3))
    assert mean(values, 0.0, 1.0) == pytest.approx((0.5, 0.0, 1.0, 3))


def test_mean_of_one_value_says_nothing_about_the_spread() -> None:
    assert mean(np.array([0.3]), 0.0, 1.0) == (0.3, 0.0, 1.0, 1)


def test_mean_shrinks_with_more_values() -> None:
    rng = np.random.default_rng(1)
    widths = [width(mean(rng.normal(size=n))) for n in (10, 100, 1_000)]
    assert widths == sorted(widths, reverse=True)


def test_mean_at_the_end_of_the_range_lies_in_its_interval() -> None:
    e = mean(torch.full((8,), math.log(2), dtype=torch.float32), 0.0, math.log(2))  # float32 rounds ln 2 up
    assert inside(e)


@given(st.lists(st.tuples(reals, reals, reals, st.integers(1, 9)), min_size=1, max_size=5))
def test_averaged_averages_each_end(rows) -> None:
    found = [Estimate(*sorted(r[:3])[1:2], min(r[:3]), max(r[:3]), r[3]) for r in rows]
    e = averaged(found)
    for got, wanted in zip(e[:3], np.mean([f[:3] for f in found], axis=0), strict=True):
        assert got == pytest.approx(wanted, abs=1e-9)
    assert inside(e)
    assert e.n == sum(f.n for f in found)


@given(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.9]), min_size=2, max_size=40), st.integers(1, 39))
def test_area_is_sklearns_with_ties(scores, cut) -> None:
    cut = min(cut, len(scores) - 1)
    m, o = np.array(scores[:cut]), np.array(scores[cut:])
    e = area(m, o)
    assert e.value == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in m for b in o]))
    assert e.value == pytest.approx(roc_auc_score([1] * len(m) + [0] * len(o), [*m, *o]))
    assert inside(e)
    assert 0 <= e.low <= e.high <= 1
    assert e.n == len(scores)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_area_covers_the_truth(shift) -> None:
    rng = np.random.default_rng(0)
    truth = norm.cdf(shift / math.sqrt(2))
    assert 0.92 <= coverage(lambda: area(rng.normal(shift, 1, 80), rng.normal(0, 1, 60)), truth) <= 0.99


def test_area_has_the_width_of_a_bootstrap() -> None:
    rng = np.random.default_rng(3)
    m, o = rng.normal(0.7, 1, 120), rng.normal(0, 1, 90)
    e = area(m, o)

    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        return float((a[:, None] > b).mean())

    ci = bootstrap((m, o), statistic, vectorized=False, n_resamples=400, rng=rng, method="percentile")
    assert width(e) == pytest.approx(ci.confidence_interval.high - ci.confidence_interval.low, rel=0.2)


@pytest.mark.parametrize(("m", "n"), [(20, 20), (26, 52), (200, 1_000)])
@pytest.mark.parametrize("shift", [2.0, 3.0, 4.5, -3.0])  # areas of 0.92, 0.983, 0.9993, 0.017: often all are apart
def test_area_covers_the_truth_near_its_ends(shift, m, n) -> None:
    rng = np.random.default_rng(1)
    truth = norm.cdf(shift / math.sqrt(2))
    assert coverage(lambda: area(rng.normal(shift, 1, m), rng.normal(0, 1, n)), truth) >= 0.93


@pytest.mark.parametrize("n", [20, 100, 1_000])
def test_area_has_a_width_where_all_are_apart(n) -> None:
    apart = np.arange(n) + 10.0 * n, np.arange(n, dtype=float)
    e, more = area(*apart), area(*apart[::-1])
    assert (e.value, e.high) == (1, 1)
    assert 1 / n < 1 - e.low < 3 / n
    assert (more.value, more.low) == (0, 0)
    assert more.high == pytest.approx(1 - e.low)


def test_area_has_newcombes_interval() -> None:
    """The worked example of the package SingleCaseES (Pustejovsky et al.), whose NAP() gives this interval."""
    e = area(np.array([28, 25, 24, 27, 30, 30, 29]), np.array([20, 20, 26, 25, 22, 23]))
    assert e == pytest.approx((0.9166666666666666, 0.5973193600384168, 0.9859976893703788, 13), abs=1e-9)


def test_area_inverts_the_test_that_it_says() -> None:
    m, n = 30, 70
    rng = np.random.default_rng(4)
    e = area(rng.normal(1, 1, m), rng.normal(0, 1, n))
    size = (m + n) / 2 - 1
    for end in (e.low, e.high):
        variance = end * (1 - end) * (1 + size * (1 - end) / (2 - end) + size * end / (1 + end)) / (m * n)
        assert abs(e.value - end) == pytest.approx(norm.ppf(0.975) * math.sqrt(variance))


def test_area_turns_with_the_sides() -> None:
    rng = np.random.default_rng(2)
    m, o = rng.normal(size=30), rng.normal(size=50)
    assert area(o, m).value == pytest.approx(1 - area(m, o).value)


def test_several_runs_are_averaged_within_all_of_their_intervals() -> None:
    found = [Estimate(0.2, 0.1, 0.4, 10), Estimate(0.6, 0.5, 0.65, 12)]
    m = _measurement(X, "retrained", "test", found)
    assert (m.value, m.low, m.high, m.n, m.runs) == (pytest.approx(0.4), 0.1, 0.65, 12, (0.2, 0.6))
    assert _measurement(X, "unlearned", "test", found[:1]).runs == ()


def test_equal_runs_stay_within_their_interval() -> None:
    m = _measurement(X, "retrained", "test", [Estimate(0.1, 0.1, 0.1, 20)] * 3)
    assert m.low <= m.value <= m.high
