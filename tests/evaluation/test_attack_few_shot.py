"""The few-shot attack: against a loop, on tricks that hide a class reversibly, and on models of the digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.feature_selection import f_classif

from unhot.evaluation.attacks.few_shot import FewShot, FewShotLayers, FewShotOutputs
from unhot.evaluation.metric import Case, Labelled, NotMeasurable
from unhot.evaluation.recovery import recovered, reweighted
from unhot.evaluation.stats import Estimate
from unhot.records.audit import Subject

Found = dict[int, Estimate]


def attacked(case: Case, attack: type[FewShot] = FewShot, **settings: Any) -> Found:
    found = attack(**settings).run(case).estimates
    return {k: found[f"{attack.prefix}_{k}_shot"] for k in (1, 5, 20)}


# against obvious loops


def slow_reweighted(scores: list[float], mine: list[bool], safe: list[bool], cost: float, w: list[float]) -> float:
    """Try every threshold that an attacker could choose."""
    images = list(zip(scores, mine, safe, w, strict=True))
    best = 0.0
    for threshold in [s for s, _, guarded, _ in images if guarded]:
        if sum(v for s, _, g, v in images if g and s > threshold) <= cost * sum(v for _, _, g, v in images if g):
            best = max(best, sum(v for s, m, _, v in images if m and s > threshold))
    return best


@given(st.integers(0, 10_000), st.floats(0.001, 0.9))
def test_reweighted_is_the_best_of_all_thresholds(seed: int, cost: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.cat([torch.tensor([0, 1]), torch.randint(3, (30,), generator=generator)])
    scores = torch.randint(-5, 6, (32, 3), generator=generator).double()  # with ties
    weights = torch.empty(4, 32, dtype=torch.float64).exponential_(generator=generator)
    mine, safe = kind == 0, kind == 1
    found = reweighted(scores, mine, safe, cost, weights)
    for s, w in enumerate(weights.tolist()):
        for r, one in enumerate(scores.T.tolist()):
            wanted = slow_reweighted(one, mine.tolist(), safe.tolist(), cost, w)
            assert float(found[s, r]) == pytest.approx(wanted)
    plain = reweighted(scores, mine, safe, cost, torch.ones(1, 32)) / mine.sum()
    assert torch.allclose(plain, recovered(scores, mine, safe, cost), atol=1e-6)


def seen_in_five_ways(known: np.ndarray, y: np.ndarray, h: np.ndarray) -> list[np.ndarray]:
    """Represent features (N, d) as they are, by direction, where the classes differ, by ranks there, and whitened."""
    lengths = np.array([max(np.sqrt(sum(v * v for v in row)), 1e-300) for row in h])
    varies = [j for j in range(known.shape[1]) if known[:, j].min() < known[:, j].max()]
    middle, spread = known[:, varies].mean(0), known[:, varies].std(0, ddof=1)
    z, of_known = (h[:, varies] - middle) / spread, (known[:, varies] - middle) / spread
    p = f_classif(of_known, y)[1]
    chosen = [j for j in np.argsort(p, kind="stable") if p[j] < 1e-3 / len(p)]
    if len(chosen) < 8:
        chosen = list(np.argsort(p, kind="stable")[:8])
    within = np.zeros((len(varies), len(varies)))
    for row, c in zip(of_known, y, strict=True):
        rest = row - of_known[y == c].mean(0)
        within += np.outer(rest, rest) / (len(y) - len(set(y)))
    values, axes = np.linalg.eigh(within)
    ranks = np.zeros((len(h), len(chosen)))
    for c, j in enumerate(chosen):
        column = sorted(known[:, varies[j]])[:: -(-len(known) // 500)]
        for i, v in enumerate(h[:, varies[j]]):
            ranks[i, c] = sum(1.0 if u < v else 0.5 if u == v else 0.0 for u in column)
        ranks[:, c] = norm.ppf((ranks[:, c] + 0.5) / (len(column) + 1))
    return [h, h / lengths[:, None], z[:, chosen], ranks, z @ axes / np.sqrt(values + 1e-10 * values.max())]


def slow_attack(case: Case, draws: int, cost: float, held: tuple[Labelled, Labelled] | None = None) -> dict[int, float]:
    """Attack what is held, or the features, by loops over classes, draws, images and thresholds."""
    forgotten = case.views.columns
    gallery, queries = held or (case.gallery(), case.queries())
    g, gy, q, qy = (t.numpy() for t in (gallery.features.double(), gallery.y, queries.features.double(), queries.y))
    right = case.on("test").masked.logits.argmax(1) == case.on("test").y
    right = right[case.halves[1]] if case.learns_from == "test" else right
    safe = [bool(r) and c not in forgotten for r, c in zip(right, qy, strict=True)]
    retained = ~np.isin(gy, forgotten)
    values: dict[tuple[int, int], list[float]] = {}
    own = seen_in_five_ways(g[retained], gy[retained], g)
    asked = seen_in_five_ways(g[retained], gy[retained], q)
    for f in forgotten:
        mine, generator = [bool(c == f) for c in qy], case.runtime.generator("few-shot", f)
        places = np.flatnonzero(gy == f)
        for _ in range(draws):
            order = torch.randperm(len(places), generator=generator).tolist()
            for k in (1, 5, 20):
                for r, (z, asked_z) in enumerate(zip(own, asked, strict=True)):
                    m = z[places[order[:k]]].mean(0)
                    others = [z[gy == c].mean(0) for c in sorted(set(gy[retained]))]
                    score = [-((x - m) ** 2).sum() + min(((x - o) ** 2).sum() for o in others) for x in asked_z]
                    won = slow_reweighted(score, mine, safe, cost, [1.0] * len(score)) / sum(mine)
                    values.setdefault((k, r), []).append(won)
    return {k: max(float(np.mean(values[k, r])) for r in range(5)) for k in (1, 5, 20)}


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("train", [True, False])
def test_the_attack_by_a_loop(forgotten: tuple[int, ...], train: bool) -> None:
    case = random_board(3, n=240 if train else 400, forgotten=forgotten, train=train).case()
    found = attacked(case, draws=2, cost=0.05)
    wanted = slow_attack(case, 2, 0.05)
    for k, e in found.items():
        assert e.value == pytest.approx(wanted[k], abs=1e-6)
        assert e.low <= e.value <= e.high
        assert e.n == sum(int(c) in forgotten for c in case.queries().y)


def test_more_dimensions_than_images_and_constant_ones_by_a_loop() -> None:
    board, generator = random_board(4, n=150), torch.Generator().manual_seed(0)
    views = {s: board.views.of("original", s) for s in ("train", "test")}

    def wide(h: torch.Tensor) -> torch.Tensor:
        return torch.cat([h, torch.randn(len(h), 200, generator=generator), torch.full((len(h), 3), 0.1)], 1)

    outputs = {s: Outputs(v.logits, wide(v.features)) for s, v in views.items()}
    case = Board({s: v.y for s, v in views.items()}, [1], outputs).case()
    wanted = slow_attack(case, 2, 0.05)
    assert {k: e.value for k, e in attacked(case, draws=2, cost=0.05).items()} == pytest.approx(wanted, abs=1e-6)


def slow_outputs(case: Case) -> tuple[Labelled, Labelled]:
    """Logarithms of probabilities, row by row, by the definition; those that never vary are left out."""

    def read(view: Any) -> torch.Tensor:
        rows = []
        for logits in view.logits.double().tolist():
            total = sum(math.exp(v) for v in logits if v > -math.inf)
            rows.append([-50.0 if v == -math.inf else max(-50.0, v - math.log(total)) for v in logits])
        return torch.tensor(rows, dtype=torch.float64)

    gallery, queries = case.gallery_of(read), case.queries_of(read)
    kept = [j for j in range(gallery.features.shape[1]) if len(set(gallery.features[:, j].tolist())) > 1]
    return Labelled(gallery.features[:, kept], gallery.y), Labelled(queries.features[:, kept], queries.y)


@pytest.mark.parametrize("forgotten", [(1,), (0, 3)])
@pytest.mark.parametrize("subject", ["unlearned", "masked"])
def test_the_attack_on_outputs_by_a_loop(forgotten: tuple[int, ...], subject: Subject) -> None:
    case = random_board(5, forgotten=forgotten).case(subject)
    held = slow_outputs(case)
    assert held[0].features.shape[1] == (4 if subject == "unlearned" else 4 - len(forgotten))
    wanted = slow_attack(case, 2, 0.05, held)
    found = attacked(case, FewShotOutputs, draws=2, cost=0.05)
    assert {k: e.value for k, e in found.items()} == pytest.approx(wanted, abs=0.011)  # float32: one image in 120
    assert FewShotOutputs().run(case).curves[0].name == "few-shot-outputs"


def test_the_masked_original_is_attacked_without_the_output_of_the_class() -> None:
    """Which alone tells the class of the original."""
    y = torch.arange(240) % 3
    logits = torch.randn(240, 3, generator=torch.Generator().manual_seed(0))
    logits += 8.0 * torch.eye(3)[y.clamp_min(1)]  # without its own output it looks like the second class
    logits[:, 0] += 12.0 * (y == 0)
    both = {s: Outputs(logits.roll(i, 0), torch.ones(240, 1)) for i, s in enumerate(("train", "test"))}
    made = Board({"train": y, "test": y.roll(1)}, [0], both)
    assert attacked(made.case("original"), FewShotOutputs, draws=3)[20].value > 0.9
    assert attacked(made.case("masked"), FewShotOutputs, draws=3)[20].value < 0.2


def test_outputs_that_are_the_same_for_every_image_cannot_be_attacked() -> None:
    y = torch.arange(90) % 3
    flat = {s: Outputs(torch.ones(90, 3), torch.eye(3)[y]) for s in ("train", "test")}
    with pytest.raises(NotMeasurable, match="outputs are the same for every image"):
        FewShotOutputs().run(Board({"train": y, "test": y}, [0], flat).case())


def with_layers(seed: int, **layers: float) -> Case:
    """A case whose layers are noise around the classes, so much apart."""
    views = random_board(seed).views
    generator = torch.Generator().manual_seed(seed)

    def layer(y: torch.Tensor, apart: float) -> torch.Tensor:
        return apart * torch.eye(4)[y] + torch.randn(len(y), 4, generator=generator)

    outputs = {
        s: Outputs(v.logits, v.features, {n: layer(v.y, apart) for n, apart in layers.items()})
        for s in ("train", "test")
        for v in [views.of("original", s)]
    }
    return Board({s: views.of("original", s).y for s in outputs}, [1], outputs).case()


def test_of_all_layers_the_strongest_counts_at_each_number_of_images() -> None:
    case = with_layers(6, early=1.0, late=2.0)
    each = [slow_attack(case, 2, 0.05, (case.gallery(name), case.queries(name))) for name in (None, "early", "late")]
    wanted = {k: max(one[k] for one in each) for k in (1, 5, 20)}
    found = FewShotLayers(draws=2, cost=0.05).run(case)
    assert {k: found.estimates[f"layer_recovery_{k}_shot"].value for k in (1, 5, 20)} == pytest.approx(wanted, abs=1e-6)
    assert found.curves[0].name == "few-shot-layers"
    assert found.curves[0].y == pytest.approx(list(wanted.values()))


def test_a_class_that_only_an_earlier_layer_knows_is_found_there() -> None:
    case = with_layers(7, early=9.0)
    assert attacked(case)[5].value < 0.8
    assert attacked(case, FewShotLayers)[5].value > 0.95
    without = random_board(7).case("original")
    assert attacked(without, FewShotLayers) == attacked(without)


# by hand


def board(train: torch.Tensor, y: torch.Tensor, test: torch.Tensor, of: torch.Tensor) -> Board:
    """Features of both splits, class 0 forgotten, every image classified correctly."""
    k = int(y.max()) + 1
    return Board(
        {"train": y, "test": of},
        [0],
        {"train": Outputs(5 * torch.eye(k)[y], train), "test": Outputs(5 * torch.eye(k)[of], test)},
    )


def test_it_is_at_the_cost_on_features_that_know_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 4
    h = [torch.randn(2000, 8, generator=generator) for _ in range(2)]
    for e in attacked(board(h[0], y, h[1], y).case(), cost=0.05).values():
        assert 0.02 < e.value < 0.09  # the strongest of five, by chance
        assert e.low < 0.06


def test_an_interval_has_a_width_where_all_is_recovered() -> None:
    y = torch.arange(120) % 3
    h = 10 * torch.eye(3)[y] + torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
    for e in attacked(board(h, y, h, y).case()).values():
        assert (e.value, e.n) == (1, 40)
        assert 0.85 < e.low < 0.97
        assert e.high == pytest.approx(1, abs=0.01)


def test_the_interval_covers_the_share_of_many_images() -> None:
    """On 30 sets of 60 images of the class the share on 4,000 is within it in most."""

    def of(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(3 * count) % 3
        return 1.5 * torch.eye(3)[y] + 0.8 * torch.randn(len(y), 3, generator=generator), y

    known = of(30, 0)
    truth = {k: e.value for k, e in attacked(board(*known, *of(4000, 1)).case(), cost=0.05).items()}
    held = dict.fromkeys(truth, 0)
    for seed in range(2, 32):
        for k, e in attacked(board(*known, *of(60, seed)).case(), cost=0.05).items():
            held[k] += e.low <= truth[k] <= e.high
    assert min(held.values()) >= 26


def test_features_that_are_all_the_same_recover_nothing() -> None:
    y = torch.arange(120) % 3
    h = torch.ones(120, 4)
    assert [e.value for e in attacked(board(h, y, h, y).case()).values()] == [0, 0, 0]


@pytest.mark.parametrize(("images", "measurable"), [(4, ()), (5, (1,)), (9, (1, 5)), (23, (1, 5)), (24, (1, 5, 20))])
def test_it_needs_some_more_images_than_shots(images: int, measurable: tuple[int, ...]) -> None:
    y = torch.tensor([0] * images + [1] * 20 + [2] * 20)
    h = torch.randn(len(y), 4, generator=torch.Generator().manual_seed(0))
    case = board(h, y, h, y).case()
    if not measurable:
        with pytest.raises(NotMeasurable, match=r"4 images of a forgotten.*5 are needed"):
            FewShot().run(case)
        return
    found = FewShot().run(case)
    assert found.curves[0].x == measurable
    for k in (1, 5, 20):
        e = found.estimates[f"recovery_{k}_shot"]
        assert isinstance(e, Estimate) if k in measurable else e.endswith(f"{k + 4} are needed")


def test_one_retained_class_is_enough_and_one_image_of_each_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 30 + [1] * 30)
    h = 20.0 * torch.eye(2)[y] + torch.randn(60, 2, generator=generator)
    assert attacked(board(h, y, h, y).case())[5].value == 1
    y = torch.tensor([0] * 30 + [1, 2])
    h = torch.randn(32, 2, generator=generator)
    with pytest.raises(NotMeasurable, match="too few images of the retained"):
        FewShot().run(board(h, y, h, y).case())


@pytest.mark.parametrize("setting", [{"draws": 1}, {"cost": 0.0}, {"cost": 1.0}, {"other": 1}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        FewShot(**setting)


# on models of the digits


def test_on_digits_it_recovers_the_class_from_the_original_and_less_from_retrained_models(digits_views) -> None:
    original = attacked(Case(digits_views, "original"))
    assert attacked(Case(digits_views, "masked")) == original
    for run in (0, 1):
        retrained = attacked(Case(digits_views, "retrained", "test", run))
        for k in (1, 5):
            assert original[k].value > 0.9
            assert retrained[k].high < original[k].low
    assert attacked(Case(digits_views, "unlearned")) == attacked(Case(digits_views, "retrained", "test", 1))


def noise(h: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
    return torch.cat([h, 28 * torch.randn(len(h), 2000, generator=torch.Generator().manual_seed(len(h)))], 1)


def squeezed(by: float, h: torch.Tensor, mine: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Shrink the direction of the class in whitened features, which a linear map undoes."""
    h = h.double()
    values, axes = torch.linalg.eigh(torch.cov(h.T) + 1e-4 * h.var() * torch.eye(h.shape[1]))
    white, back = (axes * values**p @ axes.T for p in (-0.5, 0.5))
    v = (h[mine].mean(0) - h[~mine].mean(0)) @ white
    v /= v.norm()
    m = (back @ (torch.eye(len(v)) - (1 - by) * torch.outer(v, v)) @ white).float()
    return lambda x: x @ m.T


def turned(h: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    axes = torch.linalg.qr(torch.randn(h.shape[1], h.shape[1], generator=generator)).Q
    return h @ axes * 10 ** (4 * torch.rand(h.shape[1], generator=generator) - 2)


def scaled(h: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
    return (
        h
        / h.norm(dim=1, keepdim=True)
        * torch.randn(len(h), 1, generator=torch.Generator().manual_seed(3)).mul(3).exp()
    )


TRICKS: dict[str, Callable[[torch.Tensor, torch.Tensor], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "noise dimensions": lambda h, mine: noise,
    "class direction x .01": lambda h, mine: lambda x, own: squeezed(0.01, h, mine)(x),
    "class direction x .001": lambda h, mine: lambda x, own: squeezed(0.001, h, mine)(x),
    "gate to the class's mean": lambda h, mine: (
        lambda x, own: torch.where(own[:, None], h[mine].mean(0) + 0.01 * (x - h[mine].mean(0)), x)
    ),
    "gate to the mean of the others": lambda h, mine: (
        lambda x, own: torch.where(own[:, None], h[~mine].mean(0) + 0.01 * (x - h[mine].mean(0)), x)
    ),
    "axes turned and rescaled": lambda h, mine: turned,
    "cubed": lambda h, mine: lambda x, own: (x - h.mean(0)) ** 3,
    "scale of each image": lambda h, mine: scaled,
}


@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_undone_without_loss_hides_nothing(digits_views, trick: str) -> None:
    """The masked original with other features, of which the old ones can be computed."""
    views = {s: digits_views.of("original", s) for s in ("train", "test")}
    said = {s: v.logits.argmax(1) == 3 for s, v in views.items()}
    change = TRICKS[trick](views["train"].features, said["train"])
    outputs = {s: Outputs(v.logits, change(v.features, said[s])) for s, v in views.items()}
    hidden = attacked(Board({s: v.y for s, v in views.items()}, [3], outputs).case("masked"))
    masked = attacked(Case(digits_views, "masked"))
    for k in (1, 5):
        assert hidden[k].value == pytest.approx(masked[k].value, abs=0.05)
        for run in (0, 1):
            assert attacked(Case(digits_views, "retrained", "test", run))[k].value < hidden[k].value - 0.1
