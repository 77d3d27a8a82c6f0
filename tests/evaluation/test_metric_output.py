"""What outputs tell, against scipy and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from handmade import Board, Outputs, random_board
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from unhot.evaluation.metric import NotMeasurable
from unhot.evaluation.metrics import output
from unhot.evaluation.metrics.output import ece, js

TO_RETRAINED = (
    output.output_js_to_retrained,
    output.activation_distance_to_retrained,
    output.confusion_distance_to_retrained,
)


def rows(seed: int, n: int, k: int, holes: bool) -> torch.Tensor:
    """Log-probabilities, some of them of zero."""
    generator = torch.Generator().manual_seed(seed)
    z = 5 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    if holes:
        z[:, 1:] = z[:, 1:].masked_fill(torch.rand(n, k - 1, generator=generator) < 0.3, -torch.inf)
    return z.log_softmax(1)


@given(st.integers(0, 10_000), st.integers(2, 8), st.booleans())
def test_js_is_scipys_squared(seed, k, holes) -> None:
    p, q = rows(seed, 5, k, holes), rows(seed + 1, 5, k, holes)
    wanted = jensenshannon(p.exp().numpy(), q.exp().numpy(), axis=1) ** 2
    assert js(p, q).numpy() == pytest.approx(wanted, abs=1e-12)


@given(st.integers(0, 10_000), st.integers(2, 8), st.booleans())
def test_js_is_symmetric_between_nothing_and_ln_2(seed, k, holes) -> None:
    p, q = rows(seed, 5, k, holes), rows(seed + 1, 5, k, holes)
    assert torch.allclose(js(p, q), js(q, p), atol=1e-14)
    assert (js(p, q) >= 0).all()
    assert (js(p, q) <= math.log(2) + 1e-12).all()
    assert js(p, p).abs().max() < 1e-12


def test_js_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double()
    q = torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).double()
    # first pair: they agree on half of the mass and are disjoint on the other half
    assert js(p.log(), q.log()).tolist() == pytest.approx([math.log(2) / 2, math.log(2), 0.0])


def retained(view, forgotten: int) -> np.ndarray:
    """Probabilities of the retained classes on forgotten images, by a loop."""
    found = []
    for z, c in zip(view.logits.double().tolist(), view.y.tolist(), strict=True):
        if c == forgotten:
            e = [0.0 if k == forgotten else math.exp(v) for k, v in enumerate(z)]
            found.append([v / sum(e) for v in e])
    return np.array(found)


@pytest.mark.parametrize("retrained", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_distances_to_retrained_by_a_loop(seed, retrained) -> None:
    board = random_board(seed, retrained=retrained)
    own = retained(board.views.of("unlearned", "test"), 1)
    others = [retained(board.views.of("retrained", "test", i), 1) for i in range(retrained)]
    divergence = np.mean([jensenshannon(own, o, axis=1) ** 2 for o in others])
    distance = np.mean([[math.dist(a, b) for a, b in zip(own, o, strict=True)] for o in others])
    variation = []
    for o in others:
        shares = [[sum(int(np.argmax(p)) == k for p in m) / len(m) for k in range(4)] for m in (own, o)]
        variation.append(sum(abs(a - b) for a, b in zip(*shares, strict=True)) / 2)
    wanted = (divergence, distance, np.mean(variation))
    for metric, value in zip(TO_RETRAINED, wanted, strict=True):
        e = metric(board.case())
        assert e.value == pytest.approx(value, abs=1e-5)
        assert e.low <= e.value <= e.high
        assert e.n == len(own)
        assert e.value > 0.01


def test_distances_by_hand() -> None:
    # f is class 0; both models put one image at a, the unlearned one puts the other at b, the retrained one at a
    y, never = torch.tensor([0, 0, 1, 2]), -1e9
    mine = torch.tensor([[9.0, 0, never], [9, never, 0], [0, 9, 0], [0, 0, 9]])
    theirs = torch.tensor([[never, 0.0, never], [never, 0, never], [0, 9, 0], [0, 0, 9]])
    h = torch.zeros(4, 1)
    board = Board(
        {"test": y}, [0], {"test": Outputs(mine, h)}, {"test": Outputs(mine, h)}, [{"test": Outputs(theirs, h)}]
    )
    case = board.case()
    assert output.output_js_to_retrained(case).value == pytest.approx(math.log(2) / 2)
    assert output.activation_distance_to_retrained(case).value == pytest.approx(math.sqrt(2) / 2)
    assert output.confusion_distance_to_retrained(case).value == pytest.approx(0.5)


@pytest.mark.parametrize("metric", TO_RETRAINED)
def test_a_copy_of_the_retrained_model_is_at_no_distance(metric) -> None:
    board = random_board(2, retrained=1)
    view = board.views.of("retrained", "test")
    copies = {"test": Outputs(view.logits, view.features)}
    y = {"test": board.views.splits["test"].y}
    assert metric(Board(y, [1], copies, copies, [copies]).case()).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", TO_RETRAINED)
def test_distances_need_a_retrained_model(metric) -> None:
    with pytest.raises(NotMeasurable, match=r"no retrained model was given"):
        metric(random_board(0, retrained=0).case())
    with pytest.raises(NotMeasurable, match=r"second.*retrained.*needed"):
        metric(random_board(0, retrained=1).case("retrained"))


def slow_ece(confidence: list[float], right: list[bool]) -> float:
    total = 0.0
    for m in range(15):
        inside = [i for i, c in enumerate(confidence) if m / 15 < c <= (m + 1) / 15]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return total


@given(st.lists(st.tuples(st.floats(2**-10, 1, width=32), st.booleans()), min_size=1, max_size=80))
def test_ece_by_a_loop(pairs) -> None:
    pairs = [(c, r) for c, r in pairs if abs(c * 15 - round(c * 15)) > 1e-4 or c == 1] or [(1.0, True)]
    confidence, right = [c for c, _ in pairs], [r for _, r in pairs]
    found = ece(torch.tensor(confidence), torch.tensor(right))
    assert found == pytest.approx(slow_ece(confidence, right), abs=1e-5)
    assert 0 <= found <= 1


def test_ece_by_hand() -> None:
    # sure and always right: 0; sure and right half of the time: 0.5; one bin over- and one underconfident do not cancel
    assert ece(torch.ones(4), torch.ones(4).bool()) == 0
    assert ece(torch.ones(4), torch.tensor([True, False, True, False])) == pytest.approx(0.5)
    assert ece(torch.tensor([0.5, 0.9]), torch.tensor([True, False])) == pytest.approx((0.5 + 0.9) / 2)


def test_calibration_is_of_retained_images_as_deployed() -> None:
    board = random_board(3)
    view = board.views.of("unlearned", "test")
    kept = view.y != 1
    p = view.logits[kept].softmax(1)
    e = output.calibration_error(board.case())
    right = (p.argmax(1) == view.y[kept]).tolist()
    assert e.value == pytest.approx(slow_ece(p.amax(1).tolist(), right), abs=1e-5)
    assert e.n == int(kept.sum())
    assert e.low <= e.value <= e.high
    assert (
        output.calibration_error(board.case("masked")).value != output.calibration_error(board.case("original")).value
    )
