"""Trained probes: against scikit-learn by hand, and on classes that only one of the classifiers can tell."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board
from sklearn.linear_model import LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from unhot.evaluation.attacks.trained_probes import TrainedProbes
from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.recovery import safe_queries
from unhot.evaluation.stats import Estimate


def attacked(case: Case, cost: float = 0.05) -> Estimate:
    return TrainedProbes(cost=cost).run(case).estimates["recovery_all_images"]


def hits_of(scores: np.ndarray, mine: np.ndarray, safe: np.ndarray, cost: float) -> int:
    """How many images of the class are above the threshold that loses as many safe ones as may be lost."""
    highest = sorted(scores[safe], reverse=True)
    return int((scores[mine] > highest[int(cost * len(highest))]).sum())


def by_hand(case: Case, column: int, cost: float) -> list[int]:
    """What each of the four classifiers finds of a class."""
    gallery, queries = case.gallery(), case.queries()
    h, y, q, asked = (t.numpy() for t in (gallery.features.double(), gallery.y, queries.features.double(), queries.y))
    known = (y == column) | ~np.isin(y, case.views.columns)
    h, y = h[known], y[known]
    middle, spread = h.mean(0), h.std(0, ddof=1)
    z, of = (h - middle) / spread, (q - middle) / spread
    others = y != column
    rest = np.concatenate([z[y == c] - z[y == c].mean(0) for c in set(y[others].tolist())])
    values, axes = np.linalg.eigh(rest.T @ rest / (len(rest) - len(set(y[others].tolist()))))
    white = axes @ np.diag(values**-0.5) @ axes.T
    mine, safe = asked == column, safe_queries(case).numpy()
    found = []
    for x, t in ((z, of), (z @ white, of @ white)):
        line = LogisticRegressionCV(Cs=[0.001, 0.01, 0.1, 1, 10], cv=3, scoring="neg_log_loss", max_iter=2000, tol=1e-8)
        found.append(hits_of(line.fit(x, ~others).decision_function(t), mine, safe, cost))
    net = MLPClassifier((64,), alpha=1e-2, max_iter=50, random_state=case.runtime.seed)
    found.append(hits_of(net.fit(z, ~others).predict_proba(of)[:, 1], mine, safe, cost))
    near = KNeighborsClassifier(20, weights="distance", metric="cosine").fit(z, ~others)
    return [*found, hits_of(near.predict_proba(of)[:, 1], mine, safe, cost)]


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("train", [True, False])
def test_the_strongest_of_four_by_hand(forgotten: tuple[int, ...], train: bool) -> None:
    case = random_board(2, n=240 if train else 400, forgotten=forgotten, train=train).case()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [max(by_hand(case, c, 0.05)) for c in forgotten]
    n = [int((case.queries().y == c).sum()) for c in forgotten]
    found = attacked(case)
    share = sum(w / m for w, m in zip(wanted, n, strict=True)) / len(n)
    assert found.value == pytest.approx(share, abs=1.5 / min(n))  # the solver's tolerance may move an image
    assert found.n == sum(n)
    assert found.low < found.value < found.high


def board(features: torch.Tensor, y: torch.Tensor) -> Board:
    """Features of both splits, alternately; class 0 forgotten, every image classified correctly."""
    k = int(y.max()) + 1
    halves = {"train": slice(0, None, 2), "test": slice(1, None, 2)}
    outputs = {s: Outputs(5 * torch.eye(k)[y[part]], features[part]) for s, part in halves.items()}
    return Board({s: y[part] for s, part in halves.items()}, [0], outputs)


def labels(n: int) -> torch.Tensor:
    return torch.arange(n) // 2 % 3


def noise(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def test_on_features_that_know_nothing_it_is_near_the_cost() -> None:
    assert attacked(board(noise(1200, 6), labels(1200)).case()).value < 0.15


def test_classes_apart_are_recovered_whole_with_an_interval_of_that_many_images() -> None:
    y = labels(600)
    found = attacked(board(9 * torch.eye(3)[y] + noise(600, 3), y).case())
    assert (found.value, found.high, found.n) == (1, 1, 100)
    assert found.low == pytest.approx(100 / (100 + 1.959964**2))  # Wilson's


def test_a_direction_that_was_shrunk_and_turned_is_found() -> None:
    y = labels(900)
    h = noise(900, 6)
    h[:, 5] = 0.001 * (8.0 * (y == 0) + h[:, 5])
    axes = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2))).Q
    assert attacked(board(h @ axes, y).case()).value > 0.9


def test_a_class_that_no_line_tells_is_found() -> None:
    """It is a ball within a ring of the others."""
    y = labels(900)
    angle = 2 * math.pi * torch.rand(900, generator=torch.Generator().manual_seed(3))
    ring = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    h = torch.where(y[:, None] == 0, 0.5 * noise(900, 2), ring + 0.2 * noise(900, 2))
    assert attacked(board(h, y).case()).value > 0.9


@pytest.mark.parametrize("dead", [1.0, 0.1])
def test_numbers_that_are_the_same_for_all_images_change_nothing(dead: float) -> None:
    y = labels(600)
    h = 2 * torch.eye(3)[y] + noise(600, 3)
    wide = torch.cat([h, torch.full((600, 4), dead)], 1)
    assert attacked(board(wide, y).case()) == attacked(board(h, y).case())


@pytest.mark.parametrize(("images", "enough"), [(9, False), (10, True)])
def test_it_needs_ten_images_of_the_class(images: int, enough: bool) -> None:
    y = torch.cat([torch.zeros(images).long(), 1 + torch.arange(60) % 2]).repeat_interleave(2)
    case = board(torch.eye(3)[y] + noise(len(y), 3), y).case()
    if enough:
        assert attacked(case).n == 10
    else:
        with pytest.raises(NotMeasurable, match="fewer than 10 images of a forgotten class"):
            attacked(case)
