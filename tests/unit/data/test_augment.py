from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unhot.data.augment import Augment, distort

Pixels = list[list[float]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(image: torch.Tensor, down: int, right: int, flip: bool) -> torch.Tensor:
    """Slow and obvious: every pixel is fetched from the nearest place inside the picture, then mirrored."""
    c, h, w = image.shape
    out = torch.empty_like(image)
    for k in range(c):
        for i in range(h):
            for j in range(w):
                row, column = min(max(i + down, 0), h - 1), min(max(j + right, 0), w - 1)
                out[k, i, w - 1 - j if flip else j] = image[k, row, column]
    return out


@given(
    shape=st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7)),
    shift=st.integers(0, 3),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shifts_and_flips_are_those_of_slow_obvious_code(
    shape: tuple[int, int, int, int], shift: int, flip: bool, seed: int
) -> None:
    x = torch.randn(shape, generator=seeded(seed))
    before = x.clone()
    got = Augment(shift, flip)(x, seeded(seed))
    assert torch.equal(x, before)
    assert got.shape == x.shape
    steps, flips = range(-shift, shift + 1), [False, True] if flip else [False]
    for image, out in zip(x, got, strict=True):
        assert any(torch.equal(out, moved(image, a, b, f)) for a in steps for b in steps for f in flips)


def test_every_shift_and_flip_comes_up() -> None:
    image = torch.arange(49, dtype=torch.uint8).view(1, 7, 7)
    got = Augment(2, flip=True)(image.expand(2000, 1, 7, 7), seeded(0))
    assert got.dtype == torch.uint8
    wanted = {
        tuple(moved(image, a, b, f).flatten().tolist()): (a, b, f)
        for a in range(-2, 3)
        for b in range(-2, 3)
        for f in (False, True)
    }
    seen = {wanted[tuple(g.flatten().tolist())] for g in got}
    assert seen == set(wanted.values())


def test_the_border_is_repeated() -> None:
    image = torch.tensor([[1.0, 2.0, 3.0]]).view(1, 1, 1, 3).expand(64, 1, 1, 3)
    assert {tuple(g.flatten().tolist()) for g in Augment(1)(image, seeded(0))} == {(1, 2, 3), (1, 1, 2), (2, 3, 3)}


def test_nothing_to_do_is_the_identity_and_a_seed_repeats() -> None:
    x = torch.randn(8, 3, 5, 5, generator=seeded(1))
    assert torch.equal(Augment()(x, seeded(2)), x)
    augment = Augment(2, flip=True)
    assert torch.equal(augment(x, seeded(2)), augment(x, seeded(2)))
    assert not torch.equal(augment(x, seeded(2)), augment(x, seeded(3)))


def test_gradients_flow_back_to_the_pixels() -> None:
    x = torch.randn(2, 1, 3, 3, generator=seeded(1), requires_grad=True)
    Augment(1)(x, seeded(4)).sum().backward()
    assert x.grad.sum() == pytest.approx(18)  # each of 18 outputs is one pixel


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 3, 9, 9), (2, 3, 12, 8), (2, 1, 5, 6)])
def test_distorted_copies(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=seeded(5))
    before = x.clone()
    got = distort(x, seeded(6))
    assert got.shape == (6 * shape[0], *shape[1:])
    assert torch.equal(x, before)
    coarse, fine, negative, turned, upside_down, noise = got.chunk(6)
    for moved_only in (coarse, fine, turned, upside_down):
        assert torch.equal(moved_only.flatten(2).sort().values, x.flatten(2).sort().values)
        assert not torch.equal(moved_only, x)
    assert torch.equal(negative, -x)
    assert torch.equal(upside_down, x.flip(2, 3))
    assert torch.equal(turned, x.transpose(2, 3) if shape[2] == shape[3] else x.flip(2))
    assert noise.min() < 0 < noise.max()
    assert torch.equal(distort(x, seeded(6)), got)
    assert not torch.equal(distort(x, seeded(7)), got)


def test_the_noise_is_standard_normal() -> None:
    noise = distort(torch.zeros(4, 3, 32, 32), seeded(0)).chunk(6)[5]
    assert noise.mean().abs() < 0.03
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert (noise.abs() > 2).float().mean() == pytest.approx(0.0455, abs=0.006)


@pytest.mark.parametrize(("which", "side"), [(0, 4), (1, 2)], ids=["coarse", "fine"])
def test_blocks_move_as_wholes(which: int, side: int) -> None:
    """An image of 16 pixels a side has 4 x 4 coarse blocks and 8 x 8 fine ones, and no larger ones stay together."""
    x = torch.arange(256.0).view(1, 1, 16, 16)
    moved = distort(x, seeded(6))[which, 0]

    def blocks(image: torch.Tensor, size: int) -> set[tuple[float, ...]]:
        return {tuple(b.flatten().tolist()) for row in image.split(size) for b in row.split(size, dim=1)}

    assert blocks(moved, side) == blocks(x[0, 0], side)
    assert len(blocks(moved, 2 * side) & blocks(x[0, 0], 2 * side)) < len(blocks(moved, 2 * side)) / 2


def test_distorting_keeps_the_dtype() -> None:
    assert distort(torch.zeros(1, 1, 8, 8, dtype=torch.float64), seeded(0)).dtype == torch.float64
