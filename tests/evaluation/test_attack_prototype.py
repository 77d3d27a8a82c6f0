"""The prototype attack: against a loop, by hand in two dimensions, and on models of the digits."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import Board, Outputs, random_board
from hypothesis import given
from hypothesis import strategies as st

from unhot.evaluation.attacks.prototype import Prototype
from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.recovery import recovered
from unhot.evaluation.stats import Estimate


def slow_recovered(scores: list[float], mine: list[bool], safe: list[bool], cost: float) -> float:
    """Try every threshold that an attacker could choose."""
    best = 0.0
    for threshold in [*scores, -math.inf]:
        lost = sum(s > threshold for s, x in zip(scores, safe, strict=True) if x)
        if lost <= cost * sum(safe):
            won = [s > threshold for s, m in zip(scores, mine, strict=True) if m]
            best = max(best, sum(won) / len(won))
    return best


def arrangement(seed: int, n: int = 30) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.cat([torch.tensor([0, 1]), torch.randint(3, (n,), generator=generator)])
    scores = torch.randint(-5, 6, (n + 2, 3), generator=generator).float()  # with ties
    return scores, kind == 0, kind == 1


@given(st.integers(0, 10_000), st.floats(0.001, 0.9))
def test_recovered_is_the_best_of_all_thresholds(seed, cost) -> None:
    scores, mine, safe = arrangement(seed)
    found = recovered(scores, mine, safe, cost)
    wanted = [slow_recovered(s, mine.tolist(), safe.tolist(), cost) for s in scores.T.tolist()]
    assert found.tolist() == pytest.approx(wanted)


@given(st.integers(0, 10_000), st.floats(0.001, 0.9), st.floats(0.001, 0.9))
def test_recovered_grows_with_the_cost(seed, one, other) -> None:
    scores, mine, safe = arrangement(seed)
    less, more = sorted((one, other))
    assert (recovered(scores, mine, safe, less) <= recovered(scores, mine, safe, more)).all()


@given(st.integers(0, 10_000))
def test_recovered_knows_neither_order_nor_scale(seed) -> None:
    scores, mine, safe = arrangement(seed)
    order = torch.randperm(len(mine), generator=torch.Generator().manual_seed(seed))
    whole = recovered(scores, mine, safe, 0.2)
    assert torch.equal(recovered(scores[order], mine[order], safe[order], 0.2), whole)
    assert torch.equal(recovered(3 * scores + 7, mine, safe, 0.2), whole)
    assert ((whole >= 0) & (whole <= 1)).all()


def points(unsafe: int = 0) -> Board:
    """Class f on the x axis at 1..10, the other class at 0.5, 1.5, .. 9.5 from the prototype at 0."""
    mine = torch.stack([torch.arange(1.0, 11), torch.zeros(10)], 1)
    theirs = torch.stack([torch.arange(0.5, 10), torch.zeros(10)], 1)
    y = torch.tensor([0] * 10 + [1] * 10)
    logits = 5 * torch.eye(3)[y]
    logits[10 : 10 + unsafe] = torch.tensor([0.0, 0.0, 5.0])  # these are lost already: taken for a third class
    seen = torch.tensor([0] * 5 + [1] * 5)
    known = torch.cat([torch.tensor([[-1.0, 0], [1, 0], [0, 1], [0, -1], [0, 0]]), torch.full((5, 2), 9.0)])
    train = Outputs(5 * torch.eye(3)[seen], known)
    return Board(
        {"train": seen, "test": y}, [0], {"train": train, "test": Outputs(logits, torch.cat([mine, theirs]))}
    )  # fmt: skip


@pytest.mark.parametrize(("cost", "share"), [(0.05, 0.0), (0.1, 0.1), (0.3, 0.3), (0.99, 0.9)])
def test_on_a_line_the_recovered_share_is_known(cost, share) -> None:
    # the nearest image is of the other class: each of these that may be lost brings one image of f, from 1 on
    e = Prototype(cost=cost).run(points().case()).estimates["prototype_attack_accuracy"]
    assert e.value == pytest.approx(share)


def test_images_that_are_lost_already_cost_nothing() -> None:
    e = Prototype(cost=0.05).run(points(unsafe=3).case()).estimates["prototype_attack_accuracy"]
    assert e.value == pytest.approx(0.3)  # the nearest one of the seven safe images is at 3.5: f at 1, 2, 3


def test_the_better_score_is_reported() -> None:
    # f in two directions' middle: by cosine it is perfectly told from what lies nearer by distance
    mine = torch.tensor([[10.0, 0.0], [20, 0], [30, 0], [40, 0]])
    theirs = torch.tensor([[1.0, 1], [1, -1], [2, 2], [2, -2]])
    y = torch.tensor([0] * 4 + [1] * 4)
    h, z = torch.cat([mine, theirs]), 5 * torch.eye(2)[y]
    seen, known = torch.tensor([0] * 5 + [1] * 5), torch.cat([torch.tensor([[1.0, 0]] * 5), torch.ones(5, 2)])
    outputs = {"train": Outputs(5 * torch.eye(2)[seen], known), "test": Outputs(z, h)}
    e = Prototype().run(Board({"train": seen, "test": y}, [0], outputs).case())
    assert e.estimates["prototype_attack_accuracy"].value == 1


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("seed", [0, 1, 64])  # with the last one the better score has the wider interval
def test_the_attack_by_a_loop(seed, forgotten) -> None:
    board = random_board(seed, n=120, forgotten=forgotten)
    attack, case = Prototype(draws=4, cost=0.05), board.case()
    train, test = board.views.of("unlearned", "train"), board.views.of("unlearned", "test")
    right = test.masked.logits.argmax(1) == test.y
    safe = [bool(r) and c not in forgotten for r, c in zip(right, test.y.tolist(), strict=True)]
    values = []
    for f in forgotten:
        known = train.features[train.y == f]
        generator = case.runtime.generator("prototype", f)
        by_cosine, by_distance = [], []
        for _ in range(4):
            c = sum(known[i] for i in torch.randperm(len(known), generator=generator)[:5].tolist()) / 5
            mine = (test.y == f).tolist()
            cosine = [float(h @ c / (h.norm() * c.norm())) for h in test.features]
            distance = [-float((h - c).norm()) for h in test.features]
            by_cosine.append(slow_recovered(cosine, mine, safe, 0.05))
            by_distance.append(slow_recovered(distance, mine, safe, 0.05))
        values.append(max(sum(by_cosine) / 4, sum(by_distance) / 4))
    e = attack.run(case).estimates["prototype_attack_accuracy"]
    assert e.value == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_it_needs_as_many_images_as_shots() -> None:
    with pytest.raises(NotMeasurable, match=r"5.*forgotten.*6"):
        Prototype(shots=6).run(points().case())


def test_a_model_that_has_lost_every_retained_image() -> None:
    with pytest.raises(NotMeasurable, match=r"gets.*retained.*right"):
        Prototype().run(points(unsafe=10).case())


@pytest.mark.parametrize("setting", [{"shots": 0}, {"draws": 1}, {"cost": 0.0}, {"cost": 1.0}, {"other": 1}])
def test_settings_out_of_range_are_refused(setting) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Prototype(**setting)


def test_it_is_at_the_cost_on_features_that_know_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    y = {s: torch.arange(2000) % 4 for s in ("train", "test")}
    made = {s: Outputs(5.0 * torch.eye(4)[y[s]], torch.randn(2000, 8, generator=generator)) for s in y}
    e = Prototype(cost=0.05).run(Board(y, [1], made).case()).estimates["prototype_attack_accuracy"]
    assert 0.02 < e.value < 0.08


def test_on_digits_it_succeeds_on_the_original_and_less_on_models_that_never_saw_the_class(digits_views) -> None:
    def attacked(subject: str, run: int = 0) -> Estimate:
        return Prototype().run(Case(digits_views, subject, "test", run)).estimates["prototype_attack_accuracy"]

    original, first, second = attacked("original"), attacked("retrained", 0), attacked("retrained", 1)
    assert original.low > 0.9
    assert attacked("masked") == original
    for e in (first, second):
        assert e.high < original.low - 0.2
    assert abs(first.value - second.value) < 0.5 * (original.value - max(first.value, second.value))
    assert attacked("unlearned") == second
