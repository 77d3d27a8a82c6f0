"""What features tell, against scikit-learn and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board, random_outputs
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from unhot.evaluation.metric import NotMeasurable
from unhot.evaluation.metrics import features
from unhot.evaluation.metrics.features import cka

SEEDS = (0, 1, 2)


def probe() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))


READERS = {
    "probe": (features.probe_accuracy, probe),
    "knn": (features.knn_accuracy, lambda: KNeighborsClassifier(n_neighbors=20, metric="cosine")),
    "ncm": (features.ncm_accuracy, NearestCentroid),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
@pytest.mark.parametrize("seed", SEEDS)
def test_readers_are_scikit_learns(reader, forgotten, seed) -> None:
    metric, make = READERS[reader]
    board = random_board(seed, n=300, forgotten=forgotten)
    train, test = board.views.of("unlearned", "train"), board.views.of("unlearned", "test")
    model = make().fit(train.features.numpy(), train.y.numpy())
    asked = np.isin(test.y.numpy(), forgotten)
    wanted = (model.predict(test.features.numpy()[asked]) == test.y.numpy()[asked]).mean()
    e = metric(board.case())
    assert e.value == pytest.approx(wanted, abs=1e-6)
    assert e.n == asked.sum()
    assert 0.1 < e.value < 1  # neither trivial


@pytest.mark.parametrize("reader", READERS)
def test_readers_without_train_images_learn_from_one_half_and_ask_about_the_other(reader) -> None:
    metric, make = READERS[reader]
    board = random_board(5, n=400, train=False)
    case = board.case()
    first, second = case.halves
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(400))
    view = case.view
    model = make().fit(view.features[first].numpy(), view.y[first].numpy())
    asked = second[view.y[second] == 1]
    wanted = (torch.from_numpy(model.predict(view.features[asked].numpy())) == view.y[asked]).float().mean()
    assert metric(case).value == pytest.approx(float(wanted), abs=1e-6)
    assert metric(case).n == len(asked)


@pytest.mark.parametrize(("reader", "least"), [("probe", 5), ("knn", 20), ("ncm", 5)])
def test_readers_need_images_to_learn_from(reader, least) -> None:
    generator = torch.Generator().manual_seed(0)
    metric, _ = READERS[reader]
    for count in (least - 1, least):
        train = torch.cat([torch.zeros(50), torch.full((50,), 2), torch.ones(count)]).long()
        test = torch.tensor([0, 1, 1, 2] * 5)
        made = {s: random_outputs(y, 3, generator) for s, y in (("train", train), ("test", test))}
        case = Board({"train": train, "test": test}, [1], made).case()
        if count < least:
            with pytest.raises(NotMeasurable, match=f"only {count} images of a forgotten class .* at least {least}"):
                metric(case)
        else:
            assert metric(case).n == 10


@pytest.mark.parametrize("reader", READERS)
def test_readers_are_at_chance_on_features_without_the_class(reader) -> None:
    generator = torch.Generator().manual_seed(1)
    y = {s: torch.arange(600) % 4 for s in ("train", "test")}
    made = {s: Outputs(torch.randn(600, 4, generator=generator), torch.randn(600, 5, generator=generator)) for s in y}
    # a fitted reader may favour one class, so every class is asked about
    found = [READERS[reader][0](Board(y, [c], made).case()).value for c in range(4)]
    assert sum(found) / 4 == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / 600) ** 0.5)


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("seed", SEEDS)
def test_fisher_ratio_by_a_double_loop(seed, forgotten) -> None:
    board = random_board(seed, n=60, forgotten=forgotten)
    view = board.views.of("unlearned", "test")
    h, y = view.features.tolist(), view.y.tolist()
    means = {}
    for k in range(4):
        of = [x for x, c in zip(h, y, strict=True) if c == k]
        means[k] = [sum(x[i] for x in of) / len(of) for i in range(len(h[0]))]
    ratios = []
    for f in forgotten:
        of = [x for x, c in zip(h, y, strict=True) if c == f]
        trace = sum(math.dist(x, means[f]) ** 2 for x in of) / len(of)
        ratios.append(min(math.dist(means[f], means[k]) ** 2 / trace for k in range(4) if k != f))
    e = features.feature_fisher_ratio(board.case())
    assert e.value == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
    assert e.low < e.value < e.high
    assert e.n == sum(c in forgotten for c in y)


def test_fisher_ratio_by_hand() -> None:
    # class f at (0, +-1), variance 1; the nearest other mean is 3 away
    h = torch.tensor([[0.0, 1], [0, -1], [3, 0], [3, 0], [0, 5], [0, 5]])
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    board = Board({"test": y}, [0], {"test": Outputs(torch.zeros(6, 3), h)})
    view = board.views.of("original", "test")
    assert features._fisher(view.features, view.y, [0]) == pytest.approx(9.0)


def test_fisher_ratio_of_few_images_does_not_say_that_there_are_none() -> None:
    y = torch.tensor([0] * 50 + [1] * 50 + [2] * 2)
    made = {"test": random_outputs(y, 3, torch.Generator().manual_seed(0))}
    e = features.feature_fisher_ratio(Board({"test": y}, [2], made).case())
    assert e.n == 2
    assert e.low < e.value < e.high


@pytest.mark.parametrize("forgotten", [(1,), (0, 2)])
def test_silhouette_is_scikit_learns(forgotten) -> None:
    board = random_board(6, forgotten=forgotten)
    view = board.views.of("unlearned", "test")
    values = silhouette_samples(view.features.numpy(), view.y.numpy())
    e = features.feature_silhouette(board.case())
    assert e.value == pytest.approx(values[np.isin(view.y.numpy(), forgotten)].mean(), abs=1e-5)
    assert -1 <= e.low <= e.value <= e.high <= 1


def test_silhouette_of_many_images_is_that_of_some_drawn_at_random(monkeypatch) -> None:
    """Sorted by class, the first ones would hold none of the last class."""
    monkeypatch.setattr(features, "SILHOUETTE_IMAGES", 80)
    y = torch.arange(4).repeat_interleave(60)
    made = {"test": random_outputs(y, 4, torch.Generator().manual_seed(0))}
    found = [features.feature_silhouette(Board({"test": y}, [3], made, seed=seed).case()) for seed in (0, 0, 1)]
    assert 10 <= found[0].n <= 30
    assert found[0] == found[1] != found[2]


def test_silhouette_by_a_loop() -> None:
    board = random_board(7, n=40)
    view = board.views.of("unlearned", "test")
    h, y, values = view.features.double().tolist(), view.y.tolist(), []
    for i in (i for i, c in enumerate(y) if c == 1):
        far = {c: [math.dist(h[i], h[j]) for j in range(40) if y[j] == c and j != i] for c in range(4)}
        a = sum(far[1]) / len(far[1])
        b = min(sum(d) / len(d) for c, d in far.items() if c != 1)
        values.append((b - a) / max(a, b))
    assert features.feature_silhouette(board.case()).value == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_silhouette_and_cka_need_five_images() -> None:
    for count in (4, 5):
        y = torch.tensor([0] * 20 + [1] * 20 + [2] * count)
        made = [{"test": random_outputs(y, 3, torch.Generator().manual_seed(i))} for i in range(2)]
        case = Board({"test": y}, [2], *made).case()
        for metric in (features.feature_silhouette, features.feature_cka):
            if count < 5:
                with pytest.raises(NotMeasurable, match=r"fewer than 5 images"):
                    metric(case)
            else:
                assert metric(case).n == 5


def hsic_cka(a: np.ndarray, b: np.ndarray) -> float:
    n = len(a)
    centre = np.eye(n) - np.ones((n, n)) / n
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    return float(np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m)))


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 6), st.integers(1, 6))
def test_cka_is_the_hsic_of_gram_matrices(seed, n, d, e) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(n, d, generator=generator), torch.randn(n, e, generator=generator)
    found = cka(a, b)
    assert found == pytest.approx(hsic_cka(a.double().numpy(), b.double().numpy()), abs=1e-9)
    assert found == pytest.approx(cka(b, a), abs=1e-12)
    assert 0 <= found <= 1 + 1e-9


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_cka_knows_neither_rotation_scale_nor_shift_but_does_know_a_linear_map(seed, scale) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(30, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    assert cka(scale * a @ turn + 3, b) == pytest.approx(cka(a, b), abs=1e-9)
    assert cka(a, scale * a @ turn - 1) == pytest.approx(1)
    assert cka(a, a * torch.tensor([20.0, 1, 1, 1, 1])) < 0.9


def test_feature_cka_is_of_forgotten_images_only() -> None:
    board = random_board(8)
    own, before = board.views.of("unlearned", "test"), board.views.of("original", "test")
    asked = own.y == 1
    e = features.feature_cka(board.case())
    wanted = hsic_cka(own.features[asked].double().numpy(), before.features[asked].double().numpy())
    assert e.value == pytest.approx(wanted)
    assert e.low <= e.value <= e.high
    assert features.feature_cka(board.case("original")).value == pytest.approx(1)
    assert features.feature_cka(board.case("masked")).value == pytest.approx(1)


def test_feature_cka_to_retrained_is_the_mean_over_these() -> None:
    board = random_board(9, retrained=3)
    own = board.views.of("unlearned", "test")
    asked = own.y == 1
    others = [board.views.of("retrained", "test", i).features[asked] for i in range(3)]
    wanted = [hsic_cka(own.features[asked].double().numpy(), o.double().numpy()) for o in others]
    assert features.feature_cka_to_retrained(board.case()).value == pytest.approx(np.mean(wanted))
    mine = [hsic_cka(others[1].double().numpy(), others[i].double().numpy()) for i in (0, 2)]
    assert features.feature_cka_to_retrained(board.case("retrained", 1)).value == pytest.approx(np.mean(mine))


def test_an_image_counts_once_however_many_references_there_are() -> None:
    for retrained in (1, 3):
        board = random_board(0, retrained=retrained)
        asked = int((board.views.splits["test"].y == 1).sum())
        assert features.feature_cka_to_retrained(board.case()).n == asked
