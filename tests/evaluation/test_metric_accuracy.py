"""Accuracies and drops, against loops over single images."""

from __future__ import annotations

import pytest
import torch
from handmade import Board, Outputs, random_board, shuffled
from hypothesis import given
from hypothesis import strategies as st

from unhot.evaluation.metrics import accuracy, catalogue
from unhot.evaluation.stats import paired_drop

SEEDS = (0, 1, 2)


def says(logits: list[float], without: list[int] = []) -> int:  # noqa: B006
    allowed = [k for k in range(len(logits)) if k not in without]
    return max(allowed, key=lambda k: logits[k])


def hits(board: Board, subject: str, without: list[int] = []) -> list[bool]:  # noqa: B006
    view = board.views.of(subject, "test")
    return [says(z, without) == c for z, c in zip(view.logits.tolist(), view.y.tolist(), strict=True)]


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("seed", SEEDS)
def test_accuracies_by_a_loop(seed, forgotten) -> None:
    board = random_board(seed, forgotten=forgotten)
    y, right = board.views.splits["test"].y.tolist(), hits(board, "unlearned")
    forget = [h for h, c in zip(right, y, strict=True) if c in forgotten]
    retain = [h for h, c in zip(right, y, strict=True) if c not in forgotten]
    assert accuracy.forget_accuracy(board.case()).value == pytest.approx(sum(forget) / len(forget))
    assert accuracy.retain_accuracy(board.case()).value == pytest.approx(sum(retain) / len(retain))
    assert accuracy.forget_accuracy(board.case()).n == len(forget)
    shares = {c: [h for h, k in zip(right, y, strict=True) if k == c] for c in forgotten}
    worst = max(shares.values(), key=lambda hits: sum(hits) / len(hits))
    assert accuracy.worst_forget_accuracy(board.case()).value == pytest.approx(sum(worst) / len(worst))
    assert accuracy.worst_forget_accuracy(board.case()).n == len(worst)
    assert accuracy.retain_accuracy(board.case()).n == len(retain)


@pytest.mark.parametrize("seed", SEEDS)
def test_drops_by_a_loop(seed) -> None:
    board = random_board(seed, forgotten=(1,))
    y = board.views.splits["test"].y.tolist()
    for metric, without in ((accuracy.retain_drop, []), (accuracy.retain_drop_masked, [1])):
        before, after = hits(board, "original", without), hits(board, "unlearned", without)
        kept = [(b, a) for b, a, c in zip(before, after, y, strict=True) if c != 1]
        lost = sum(b for b, _ in kept) - sum(a for _, a in kept)
        assert metric(board.case()).value == pytest.approx(lost / len(kept))
        assert metric(board.case()).n == len(kept)


@pytest.mark.parametrize("seed", SEEDS)
def test_worst_class_by_a_loop(seed) -> None:
    board = random_board(seed, forgotten=(1,))
    y = board.views.splits["test"].y.tolist()
    before, after = hits(board, "original", [1]), hits(board, "unlearned", [1])
    drops = {}
    for c in (0, 2, 3):
        of = [i for i, label in enumerate(y) if label == c]
        drops[c] = (sum(before[i] for i in of) - sum(after[i] for i in of)) / len(of)
    worst = max(drops, key=drops.get)
    e = accuracy.worst_class_drop(board.case())
    assert e.value == pytest.approx(drops[worst])
    of = torch.tensor(y) == worst
    assert e == paired_drop(torch.tensor(before)[of], torch.tensor(after)[of])


def test_per_class_by_a_loop() -> None:
    board = random_board(3)
    y, right = board.views.splits["test"].y.tolist(), hits(board, "unlearned")
    found = accuracy.per_class(board.case())
    assert sorted(found) == [0, 1, 2, 3]
    for c, e in found.items():
        of = [h for h, label in zip(right, y, strict=True) if label == c]
        assert (e.value, e.n) == (pytest.approx(sum(of) / len(of)), len(of))


def test_by_hand() -> None:
    # classes a, b, f; f (column 2) is forgotten. The original takes one image of a for f, the unlearned model none
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    before = torch.tensor([[3.0, 0, 1], [1, 0, 2], [0, 3, 1], [0, 3, 1], [0, 1, 3], [0, 1, 3]])
    after = torch.tensor([[3.0, 0, 1], [2, 0, 1], [0, 3, 1], [3, 0, 1], [0, 3, 1], [0, 1, 3]])
    nothing = torch.zeros(6, 1)
    board = Board({"test": y}, [2], {"test": Outputs(before, nothing)}, {"test": Outputs(after, nothing)})
    assert accuracy.forget_accuracy(board.case("original")).value == 1
    assert accuracy.forget_accuracy(board.case()).value == 0.5
    assert accuracy.forget_accuracy(board.case("masked")).value == 0
    assert accuracy.retain_accuracy(board.case("original")).value == 0.75
    assert accuracy.retain_accuracy(board.case("masked")).value == 1
    assert accuracy.retain_drop(board.case()).value == 0  # one image of a is won, one of b lost
    assert accuracy.retain_drop_masked(board.case()).value == 0.25  # masking alone had won the image of a
    assert accuracy.worst_class_drop(board.case()).value == 0.5
    assert accuracy.worst_class_drop(board.case()).n == 2


@given(st.integers(0, 10_000))
def test_masked_forgets_all_and_loses_nothing(seed) -> None:
    board = random_board(seed, n=80)
    masked = board.case("masked")
    assert accuracy.forget_accuracy(masked).value == 0
    assert accuracy.retain_drop(masked).value <= 0
    assert accuracy.retain_drop_masked(masked).value == 0
    assert accuracy.worst_class_drop(masked).value == 0
    assert accuracy.retain_drop(board.case("original")).value == 0


@given(st.integers(0, 10_000))
def test_ranges(seed) -> None:
    board = random_board(seed, n=60)
    for name in ("forget_accuracy", "retain_accuracy", "retain_drop", "retain_drop_masked", "worst_class_drop"):
        e = catalogue.get(name)(board.case())
        assert e.low <= e.value <= e.high
        assert (-1 if "drop" in name else 0) <= e.value <= 1
    assert accuracy.worst_class_drop(board.case()).value >= accuracy.retain_drop_masked(board.case()).value - 1e-9


ORDERLESS = [
    "forget_accuracy", "worst_forget_accuracy", "retain_accuracy", "retain_drop", "retain_drop_masked",
    "worst_class_drop", "calibration_error",
    "output_js_to_retrained", "activation_distance_to_retrained", "confusion_distance_to_retrained", "probe_accuracy",
    "knn_accuracy", "ncm_accuracy", "feature_fisher_ratio", "feature_silhouette", "feature_cka",
    "feature_cka_to_retrained",
]  # fmt: skip


@pytest.mark.parametrize("name", ORDERLESS)
def test_the_order_of_images_does_not_matter(name) -> None:
    board = random_board(4, n=200)
    compute = catalogue.get(name)
    for seed in (1, 2):
        assert compute(shuffled(board, seed).case()).value == pytest.approx(compute(board.case()).value, abs=1e-5)


# regressions that are learnt from a draw of the images, which depends on their order
DRAWN = ["original_features_r2", "original_layers_r2", "original_outputs_r2"]


@pytest.mark.parametrize("name", DRAWN)
def test_the_order_of_images_matters_little_where_some_are_drawn(name) -> None:
    board = random_board(4, n=200)
    compute = catalogue.get(name)
    assert compute(shuffled(board, 1).case()).value == pytest.approx(compute(board.case()).value, abs=0.1)


def test_every_metric_is_tested_for_order() -> None:
    assert {*ORDERLESS, *DRAWN} == set(catalogue)
