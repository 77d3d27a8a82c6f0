from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unhot.methods.nhle_cwm import EncodingName
from unhot.methods.parts.losses import ENCODINGS, Request

K = 7


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def request(columns: list[int], seed: int = 0, batch: int = 4) -> tuple[Tensor, Request]:
    """Logits (B, K) of images of the columns in turn, and what the original model returned for them."""
    y = torch.tensor([columns[i % len(columns)] for i in range(batch)])
    return 3 * normal(batch, K, seed=seed), Request(y, columns, 3 * normal(batch, K, seed=seed + 100))


def gradient(name: str, z: Tensor, asked: Request) -> Tensor:
    """The gradient for each image, (B, K): the encodings are means over the batch."""
    z = z.detach().requires_grad_()
    (found,) = torch.autograd.grad(ENCODINGS[name](z, asked), z)
    return len(z) * found


def one_hot(i: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64)[i]


def left_out(p: Tensor, columns: list[int]) -> Tensor:
    """p with some columns at 0, scaled to sum to 1."""
    kept = p.clone()
    kept[columns] = 0
    return kept / kept.sum()


def shares(columns: list[int]) -> Tensor:
    return left_out(torch.ones(K, dtype=torch.float64), columns)


Analytic = Callable[[Tensor, Tensor, int, list[int]], Tensor]

# of METHODS.md 1.5, for one image: from its logits, the original's, its class, and all classes to forget
ANALYTIC: dict[str, Analytic] = {
    "literal": lambda z, o, f, gone: one_hot(f) - z.softmax(0),
    "zero-sum": lambda z, o, f, gone: one_hot(f) - shares(gone),
    "margin": lambda z, o, f, gone: (
        one_hot(f) - shares(gone) if z[f] - (z * shares(gone)).sum() > -1 else torch.zeros(K, dtype=torch.float64)
    ),
    "mse": lambda z, o, f, gone: 2 * (z + one_hot(f)) / K,
    "complement": lambda z, o, f, gone: z.softmax(0) - left_out(z.softmax(0), gone),
    "masked": lambda z, o, f, gone: z.softmax(0) - left_out(o.softmax(0), gone),
    "uniform": lambda z, o, f, gone: z.softmax(0) - shares(gone),
    "second-class": lambda z, o, f, gone: z.softmax(0) - one_hot(int(left_out(o.softmax(0), gone).argmax())),
}


def test_every_encoding_is_tested_and_selectable() -> None:
    assert set(ANALYTIC) == set(ENCODINGS) == set(get_args(EncodingName))


@pytest.mark.parametrize("name", ENCODINGS)
@given(seed=st.integers(0, 50), columns=st.lists(st.integers(0, K - 1), min_size=1, max_size=K - 1, unique=True))
def test_gradients_are_the_analytic_ones(name: str, seed: int, columns: list[int]) -> None:
    z, asked = request(columns, seed)
    found = gradient(name, z, asked)
    for i, row in enumerate(found):
        expected = ANALYTIC[name](z[i], asked.original[i], int(asked.y[i]), columns)
        torch.testing.assert_close(row, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("columns", [[2], [5, 0, 3]])
@pytest.mark.parametrize("name", ENCODINGS)
def test_gradcheck(name: str, columns: list[int]) -> None:
    z, asked = request(columns)
    assert torch.autograd.gradcheck(lambda t: ENCODINGS[name](t, asked), z.requires_grad_())
    assert ENCODINGS[name](z, asked).shape == ()


@pytest.mark.parametrize("name", ["literal", "zero-sum", "margin", "complement", "masked", "uniform", "second-class"])
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    z, asked = request([2, 4])
    torch.testing.assert_close(ENCODINGS[name](z + 7.5, asked), ENCODINGS[name](z, asked))


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_step_down_the_gradient_lowers_the_forgotten_logit(name: str) -> None:
    z, asked = request([2])
    z[:, 2] = 6.0  # as for images that are taken for the class
    assert (gradient(name, z, asked)[:, 2] > 0).all()


@pytest.mark.parametrize("name", ["masked", "uniform"])
def test_divergences_are_never_negative_and_zero_at_their_target(name: str) -> None:
    for seed in range(20):
        assert ENCODINGS[name](*request([1, 3], seed)) >= 0
    z, asked = request([1, 3])
    kept = asked.original.clone() if name == "masked" else torch.zeros_like(z)
    kept[:, [1, 3]] = -1e4  # as the cut leaves them
    assert ENCODINGS[name](kept, asked).abs() < 1e-12
    assert gradient(name, kept, asked).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "least"), [("margin", 0.0), ("mse", 0.0), ("complement", 0.0), ("masked", 0.0), ("uniform", 0.0)]
)
@given(scale=st.floats(0, 1e6), seed=st.integers(0, 20))
def test_bounded_encodings_have_a_least_value(name: str, least: float, scale: float, seed: int) -> None:
    z, asked = request([2, 6], seed)
    value = ENCODINGS[name](scale * z, asked)
    assert torch.isfinite(value)
    assert value >= least - 1e-9


@pytest.mark.parametrize("name", ["literal", "zero-sum"])
def test_unbounded_encodings_have_none(name: str) -> None:
    z, asked = request([2])
    for fall in (1e2, 1e4, 1e6):
        fallen = z.clone()
        fallen[:, 2] -= fall
        assert ENCODINGS[name](fallen, asked) < -0.9 * fall


@pytest.mark.parametrize("name", ["literal", "complement", "masked", "uniform", "second-class"])
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_stay_bounded_and_finite_at_extreme_logits(name: str, sign: int) -> None:
    z, asked = request([2])
    z[:, 2] += sign * 1e5
    found = gradient(name, z, asked)
    assert torch.isfinite(found).all()
    assert found.norm(dim=1).max() <= 2**0.5 + 1e-9


def test_margin_stops_by_itself() -> None:
    z, asked = request([2])
    z[:] = 0.5
    z[:, 2] = 0.5 - torch.tensor([0.0, 0.99, 1.01, 30.0], dtype=torch.float64)
    assert ENCODINGS["margin"](z, asked).item() == pytest.approx((1.0 + 0.01) / 4)
    active = gradient("margin", z, asked).abs().sum(1) > 0
    assert active.tolist() == [True, True, False, False]


def test_values_by_hand() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    asked = Request(torch.tensor([0]), [0], p.log() + 4)
    z = p.log() - 3
    expected = {
        "literal": torch.tensor(0.5).log(),
        "complement": -torch.tensor(0.5).log(),
        "masked": 0.6 * torch.tensor(0.6 / 0.3).log() + 0.4 * torch.tensor(0.4 / 0.2).log(),
        "uniform": 0.5 * torch.tensor(0.5 / 0.3).log() + 0.5 * torch.tensor(0.5 / 0.2).log(),
        "second-class": -torch.tensor(0.3).log(),
        "zero-sum": torch.tensor(0.5).log() - (torch.tensor(0.3).log() + torch.tensor(0.2).log()) / 2,
    }
    for name, value in expected.items():
        assert ENCODINGS[name](z, asked).item() == pytest.approx(value.item(), abs=1e-6), name
    z = torch.tensor([[1.0, -2.0, 0.5]])
    assert ENCODINGS["mse"](z, asked).item() == pytest.approx((4 + 4 + 0.25) / 3)


@pytest.mark.parametrize("columns", [[2], [5, 0, 3]])
def test_complement_and_masked_start_with_the_same_gradient(columns: list[int]) -> None:
    _, asked = request(columns)
    start = asked.original
    torch.testing.assert_close(gradient("complement", start, asked), gradient("masked", start, asked))
    torch.testing.assert_close(ENCODINGS["complement"](start, asked), ENCODINGS["masked"](start, asked))
    later = start + normal(*start.shape, seed=9)
    assert not torch.allclose(gradient("complement", later, asked), gradient("masked", later, asked), atol=1e-3)


@pytest.mark.parametrize("name", ["complement", "masked", "uniform"])
def test_all_forgotten_classes_fall_together(name: str) -> None:
    z, asked = request([5, 0, 3])
    z[:, [5, 0, 3]] = 4.0
    assert (gradient(name, z, asked)[:, [5, 0, 3]] > 0).all()


def test_what_a_request_leaves_out() -> None:
    z, asked = request([5, 0])
    assert asked.retained().tolist() == [False, True, True, True, True, False, True]
    assert torch.equal(asked.without_forgotten(z)[:, [1, 2, 3, 4, 6]], z[:, [1, 2, 3, 4, 6]])
    assert (asked.without_forgotten(z)[:, [0, 5]] == -torch.inf).all()


@pytest.mark.parametrize("name", ENCODINGS)
def test_float32_agrees(name: str) -> None:
    z, asked = request([1])
    single = Request(asked.y, asked.columns, asked.original.float())
    value = ENCODINGS[name](z.float(), single)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), ENCODINGS[name](z, asked), rtol=1e-5, atol=1e-5)
