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

from unhot.data.images import LabelledImages
from unhot.evaluation.attacks.membership import Membership, balanced, modified_entropy, tpr_at
from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.stats import proportion
from unhot.evaluation.view import Views
from unhot.records.audit import Split
from unhot.training import train

AREAS = ("mia_auc", "mia_auc_loss", "mia_auc_confidence")


def slow_entropy(p: list[float], y: int) -> float:
    total = -(1 - p[y]) * math.log(max(p[y], 1e-12))
    for k, v in enumerate(p):
        if k != y:
            total -= v * math.log(max(1 - v, 1e-12))
    return total


@given(st.integers(0, 10_000), st.integers(2, 8))
def test_modified_entropy_by_a_loop(seed, k) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(12, k, generator=generator, dtype=torch.float64)).softmax(1)
    y = torch.randint(k, (12,), generator=generator)
    wanted = [slow_entropy(row, c) for row, c in zip(p.tolist(), y.tolist(), strict=True)]
    assert modified_entropy(p, y).tolist() == pytest.approx(wanted)
    assert (modified_entropy(p, y) >= 0).all()


def test_modified_entropy_by_hand() -> None:
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


def test_modified_entropy_tells_sure_and_wrong_from_sure_and_right() -> None:
    """The plain entropy of both is nearly 0: that is what the modification is for."""
    p = torch.tensor([[0.98, 0.01, 0.01], [0.98, 0.01, 0.01]]).double()
    right, wrong = modified_entropy(p, torch.tensor([0, 1])).tolist()
    assert right < 0.1 < 4 < wrong


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.1, 0.25, 0.5]),
)
def test_tpr_at_by_a_loop(members, others, rate) -> None:
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
def test_areas_are_scikit_learns_of_scores_by_a_loop(seed, forgotten) -> None:
    board = random_board(seed, n=400, forgotten=forgotten)
    scores: dict[str, list[list[float]]] = {n: [] for n in AREAS}
    labels: list[list[int]] = []
    for split in ("train", "test"):
        view = board.views.of("unlearned", split)
        rows = [(z, c) for z, c in zip(view.logits.double().tolist(), view.y.tolist(), strict=True) if c in forgotten]
        p = [([math.exp(v) / sum(map(math.exp, z)) for v in z], c) for z, c in rows]
        labels.append([c for _, c in p])
        scores["mia_auc"].append([-slow_entropy(q, c) for q, c in p])
        scores["mia_auc_loss"].append([math.log(q[c]) for q, c in p])
        scores["mia_auc_confidence"].append([max(q) for q, _ in p])
    counts = [{c: own.count(c) for c in forgotten} for own in labels]
    alike = {c: counts[0][c] * counts[1][c] / (counts[0][c] + counts[1][c]) for c in forgotten}
    weights = [alike[c] / count[c] for own, count in zip(labels, counts, strict=True) for c in own]
    found = attack(board)
    for name, (members, others) in scores.items():
        truth = [1] * len(members) + [0] * len(others)
        wanted = roc_auc_score(truth, members + others, sample_weight=weights)
        assert found[name].value == pytest.approx(wanted)
        assert found[name].n == len(members) + len(others)


def test_the_curve_is_the_roc_of_the_main_score() -> None:
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


def test_chance_and_power_on_made_scores() -> None:
    e = [attack(made(0.0, seed=s))["mia_auc"] for s in range(40)]
    assert sum(x.low <= 0.5 <= x.high for x in e) >= 35
    assert attack(made(2.0))["mia_auc"].low > 0.7
    assert attack(made(-2.0))["mia_auc"].high < 0.3  # far below is a leak, too


def unlike(shares: tuple[tuple[int, int], ...], gap: float, seed: int) -> Board:
    """Two forgotten classes with unlike scores: so many train and test images of each."""
    generator = torch.Generator().manual_seed(seed)
    counts = {s: [n[i] for n in shares] + [100, 100] for i, s in enumerate(("train", "test"))}
    y = {s: torch.arange(4).repeat_interleave(torch.tensor(n)) for s, n in counts.items()}
    z = {s: torch.randn(len(v), 4, generator=generator) for s, v in y.items()}
    for s, v in y.items():
        z[s][v == 0, 0] += 4  # one class is classified with much confidence, the other is not
        z[s][v == 1, 1] -= 2
    z["train"][y["train"] < 2, y["train"][y["train"] < 2]] += gap
    return Board(y, [0, 1], {s: Outputs(z[s], z[s]) for s in y})


@pytest.mark.parametrize("shares", [((400, 100), (100, 400)), ((200, 30), (25, 300)), ((900, 300), (300, 300))])
def test_classes_of_unlike_share_do_not_make_members_of_a_net_that_saw_neither_split(shares) -> None:
    found = [attack(unlike(shares, 0.0, s)) for s in range(20)]
    for name in AREAS:
        assert np.mean([f[name].value for f in found]) == pytest.approx(0.5, abs=0.04)
        assert sum(f[name].low <= 0.5 <= f[name].high for f in found) >= 17
    rates = [f["mia_tpr_at_1pct_fpr"] for f in found]
    assert np.mean([r.value for r in rates if not isinstance(r, str)] or [0.01]) < 0.03
    assert np.mean([attack(unlike(shares, 1.5, s))["mia_auc"].value for s in range(5)]) > 0.6  # what is there is found


def test_a_class_of_one_split_only_says_nothing() -> None:
    board = unlike(((200, 200), (100, 0)), 0.0, 0)
    assert attack(board)["mia_auc"].n == 500  # looked at, with no weight
    assert attack(board)["mia_auc"].value == pytest.approx(0.5, abs=0.08)
    with pytest.raises(NotMeasurable, match=r"0.*train.*0"):
        attack(unlike(((200, 0), (0, 200)), 0.0, 0))


def test_weights_are_1_where_all_classes_have_the_same_share() -> None:
    weights = balanced(torch.tensor([0, 0, 2, 2]), torch.tensor([2, 0]))
    assert [w.tolist() for w in weights] == [[1, 1, 1, 1], [1, 1]]


def test_masked_scores_do_not_break_on_probabilities_of_nothing() -> None:
    found = attack(made(2.0), "masked")
    assert found["mia_auc_loss"].value == pytest.approx(0.5)  # the loss is cut to one value
    assert 0.4 < found["mia_auc"].value < 0.6  # the others are independent of the gap here


@pytest.mark.parametrize(("n", "present"), [(396, (False, False)), (400, (True, False)), (4_000, (True, True))])
def test_low_rates_need_enough_images(n, present) -> None:
    found = attack(made(3.0, n))
    for name, there, rate in zip(("mia_tpr_at_1pct_fpr", "mia_tpr_at_01pct_fpr"), present, (100, 1000), strict=True):
        if there:
            assert found[name].value > 0.05
        else:
            assert found[name].endswith(f"needs {rate} test images of the class, there are {n // 4}")


def test_it_needs_both_splits_and_20_images_of_each() -> None:
    with pytest.raises(NotMeasurable, match=r"no train images were given"):
        attack(random_board(0, train=False))
    with pytest.raises(NotMeasurable, match=r"19.*train.*19.*20.*needed"):
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
def test_on_digits_models_that_never_saw_the_class_cannot_tell_members(digits_views, run) -> None:
    models = digits_views.models
    args = models["original"][0], models["unlearned"][0], models["retrained"], digits_views.labels
    views = Views(*args, dealt(digits_views), digits_views.runtime)
    e = Membership().run(Case(views, "retrained", "test", run)).estimates["mia_auc"]
    assert e.low <= 0.5 <= e.high


def test_on_digits_an_overfitted_original_gives_its_members_away(zoo) -> None:
    """A model that learned a few images by heart: the attack must see it."""
    source = zoo.source
    few = source.train_images.select(torch.arange(0, 400))
    small = replace(source, train=few)
    model, _ = train(small, "lenet5", settings={"epochs": 40, "lr": 0.1, "weight_decay": 0.0}, runtime=runtime())
    splits = {"train": few, "test": source.test_images}
    aligned = {s: model.align(i).cached(model.input) for s, i in splits.items()}
    views = Views(model, model, [], [model.label(c) for c in (3, 8)], aligned, runtime())
    found = Membership().run(Case(views, "original")).estimates
    assert found["mia_auc"].low > 0.5
