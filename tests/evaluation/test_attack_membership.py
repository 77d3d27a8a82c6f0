"""Membership inference: scores by loops and by hand, calibration and power."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board, runtime
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from unhot.audit_record import Split
from unhot.data.images import LabelledImages
from unhot.evaluation.attacks.membership import Membership, modified_entropy, tpr_at
from unhot.evaluation.metric import Absent, Case
from unhot.evaluation.stats import proportion
from unhot.evaluation.view import Views
from unhot.train import train_classifier

AREAS = ("mia_auc", "mia_auc_loss", "mia_auc_confidence")


def slow_entropy(p: list[float], y: int) -> float:
    total = -(1 - p[y]) * math.log(max(p[y], 1e-12))
    for k, v in enumerate(p):
        if k != y:
            total -= v * math.log(max(1 - v, 1e-12))
    return total


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_modified_entropy_by_a_loop(seed, k):
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(12, k, generator=generator, dtype=torch.float64)).softmax(1)
    y = torch.randint(k, (12,), generator=generator)
    wanted = [slow_entropy(row, c) for row, c in zip(p.tolist(), y.tolist(), strict=True)]
    assert modified_entropy(p, y).tolist() == pytest.approx(wanted)
    assert (modified_entropy(p, y) >= 0).all()


def test_modified_entropy_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]).double()
    y = torch.tensor([0, 1, 0, 0])
    ln2, ln4, ln34 = math.log(2), math.log(4), math.log(0.75)
    wanted = [
        0.5 * ln2 - 0.5 * ln34,  # -(1-.5) log .5 - 2 * .25 log .75
        0.75 * ln4 + 0.5 * ln2 - 0.25 * ln34,
        0.0,  # sure and right
        12 * math.log(10) + ln2,  # the label is cut out: log 1e-12 stands for log 0
    ]
    assert modified_entropy(p, y).tolist() == pytest.approx(wanted)


def test_modified_entropy_tells_sure_and_wrong_from_sure_and_right():
    """The plain entropy of both is nearly 0: that is what the modification is for."""
    p = torch.tensor([[0.98, 0.01, 0.01], [0.98, 0.01, 0.01]]).double()
    right, wrong = modified_entropy(p, torch.tensor([0, 1])).tolist()
    assert right < 0.1 < 4 < wrong


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.1, 0.25, 0.5]),
)
def test_tpr_at_by_a_loop(members, others, rate):
    best = 0.0
    for threshold in [-1, *members, *others]:
        if sum(o > threshold for o in others) <= rate * len(others):
            best = max(best, sum(m > threshold for m in members) / len(members))
    e = tpr_at(np.array(members, float), np.array(others, float), rate)
    assert e.value == pytest.approx(best)
    assert e[1:3] == pytest.approx(proportion(torch.arange(len(members)) < round(best * len(members)))[1:3])


def attack(board: Board, subject: str = "unlearned") -> dict:
    return Membership().run(board.case(subject)).estimates


@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
@pytest.mark.parametrize("seed", [0, 1])
def test_areas_are_scikit_learns_of_scores_by_a_loop(seed, forgotten):
    board = random_board(seed, n=400, forgotten=forgotten)
    scores: dict[str, list[list[float]]] = {n: [] for n in AREAS}
    for split in ("train", "test"):
        view = board.views.of("unlearned", split)
        rows = [(z, c) for z, c in zip(view.logits.double().tolist(), view.y.tolist(), strict=True) if c in forgotten]
        p = [([math.exp(v) / sum(map(math.exp, z)) for v in z], c) for z, c in rows]
        scores["mia_auc"].append([-slow_entropy(q, c) for q, c in p])
        scores["mia_auc_loss"].append([math.log(q[c]) for q, c in p])
        scores["mia_auc_confidence"].append([max(q) for q, _ in p])
    found = attack(board)
    for name, (members, others) in scores.items():
        wanted = roc_auc_score([1] * len(members) + [0] * len(others), members + others)
        assert found[name].value == pytest.approx(wanted)
        assert found[name].n == len(members) + len(others)


def test_the_curve_is_the_roc_of_the_main_score():
    board = random_board(2, n=400)
    finding = Membership().run(board.case())
    (curve,) = finding.curves
    assert curve.name == "roc"
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(finding.estimates["mia_auc"].value)


def made(gap: float, n: int = 400, seed: int = 0) -> Board:
    """Members of the forgotten class have logits of it that are ``gap`` higher than those of other images of it."""
    generator = torch.Generator().manual_seed(seed)
    y = {s: torch.arange(n) % 4 for s in ("train", "test")}
    z = {s: torch.randn(n, 4, generator=generator) for s in y}
    z["train"][y["train"] == 1, 1] += gap
    return Board(y, [1], {s: Outputs(z[s], z[s]) for s in y})


def test_chance_and_power_on_made_scores():
    e = [attack(made(0.0, seed=s))["mia_auc"] for s in range(40)]
    assert sum(x.low <= 0.5 <= x.high for x in e) >= 35
    assert attack(made(2.0))["mia_auc"].low > 0.7
    assert attack(made(-2.0))["mia_auc"].high < 0.3  # far below is a leak, too


def test_masked_scores_do_not_break_on_probabilities_of_nothing():
    found = attack(made(2.0), "masked")
    assert found["mia_auc_loss"].value == pytest.approx(0.5)  # the loss is cut to one value
    assert 0.4 < found["mia_auc"].value < 0.6  # the others are independent of the gap here


@pytest.mark.parametrize(("n", "present"), [(396, (False, False)), (400, (True, False)), (4_000, (True, True))])
def test_low_rates_need_enough_images(n, present):
    found = attack(made(3.0, n))
    for name, there, rate in zip(("mia_tpr_at_1pct_fpr", "mia_tpr_at_01pct_fpr"), present, (100, 1000), strict=True):
        if there:
            assert found[name].value > 0.05
        else:
            assert found[name].endswith(f"needs {rate} test images of the class, there are {n // 4}")


def test_it_needs_both_splits_and_20_images_of_each():
    with pytest.raises(Absent, match=r"no train images were given"):
        attack(random_board(0, train=False))
    with pytest.raises(Absent, match=r"only 19 train and 19 test images .* 20 of each are needed"):
        attack(made(0.0, 76))
    assert attack(made(0.0, 80))["mia_auc"].n == 40


def dealt(views: Views) -> dict[Split, LabelledImages]:
    """Deal the images of class 3 anew: those of the two splits were written by different people."""
    test, train = views.splits["test"], views.splits["train"]
    x, y = torch.cat([train.x, test.x]), torch.cat([train.y, test.y])
    order = torch.arange(len(y))
    mine = (y == 3).nonzero().flatten()
    order[mine] = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(0))]
    parts = {"train": order[: len(train)], "test": order[len(train) :]}
    return {n: replace(test, x=x[i], y=y[i], keys=tuple(i.tolist())) for n, i in parts.items()}


@pytest.mark.parametrize("run", [0, 1])
def test_on_digits_models_that_never_saw_the_class_cannot_tell_members(digits_views, run):
    models = digits_views.models
    args = models["original"][0], models["unlearned"][0], models["retrained"], digits_views.labels
    views = Views(*args, dealt(digits_views), digits_views.runtime)
    e = Membership().run(Case(views, "retrained", "test", run)).estimates["mia_auc"]
    assert e.low <= 0.5 <= e.high


def test_on_digits_an_overfitted_original_gives_its_members_away(zoo):
    """A model that learned a few images by heart: the attack must see it."""
    source = zoo.source
    few = source.seen.select(torch.arange(0, 400))
    small = replace(source, train=few)
    model, _ = train_classifier(
        small, "lenet5", settings={"epochs": 40, "lr": 0.1, "weight_decay": 0.0}, runtime=runtime()
    )
    splits = {"train": few, "test": source.held_out}
    aligned = {s: model.align(i).held(model.input) for s, i in splits.items()}
    views = Views(model, model, [], [model.label(c) for c in (3, 8)], aligned, runtime())
    found = Membership().run(Case(views, "original")).estimates
    assert found["mia_auc"].low > 0.5
