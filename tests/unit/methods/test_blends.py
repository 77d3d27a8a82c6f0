"""Blends of activations: where they lie between two."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unhot.methods.parts.blends import mixed, patched

A, B = torch.zeros(400, 3, 7, 5), torch.ones(400, 3, 7, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("most", [1.0, 0.4])
def test_mixes_are_weighted_means_with_weights_up_to_the_most(most: float) -> None:
    weight = mixed(A, B, generator(), most)
    assert torch.equal(weight, weight[:, :1, :1, :1].expand_as(weight))
    weight = weight[:, 0, 0, 0]
    assert 0 <= weight.min() < 0.02 * most
    assert 0.98 * most < weight.max() <= most
    assert weight.mean().item() == pytest.approx(most / 2, abs=0.03)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 1), st.integers(0, 99))
def test_patches_are_rectangles_of_the_second(height: int, width: int, most: float, seed: int) -> None:
    shape = (12, 2, height, width)
    inside = patched(torch.zeros(shape), torch.ones(shape), generator(seed), most)
    assert torch.equal(inside[:, 0], inside[:, 1])
    for one in inside[:, 0]:
        rows, columns = one.amax(1), one.amax(0)
        assert torch.equal(one, rows[:, None] * columns)
        for run in (rows, columns):
            assert int(run.diff().abs().sum()) <= 2
            assert run.sum() <= round(most**0.5 * len(run)) + 1


def test_patches_lie_everywhere_and_have_the_areas_wanted() -> None:
    inside = patched(A, B, generator(), 0.5)[:, 0]
    assert inside.mean().item() == pytest.approx(0.25, abs=0.03)
    assert inside.mean(0).min() > 0.05
    assert inside.mean((1, 2)).max() <= 5 * 4 / 35


def test_what_is_no_map_is_mixed() -> None:
    assert torch.equal(
        patched(A[:, :, 0], B[:, :, 0], generator(), 0.3), mixed(A[:, :, 0], B[:, :, 0], generator(), 0.3)
    )


def test_the_kind_of_number_stays() -> None:
    for blend in (mixed, patched):
        assert blend(A.bfloat16(), B.bfloat16(), generator()).dtype == torch.bfloat16
