from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unhot.errors import OptionError
from unhot.runtime import Runtime, pick_device, stream_seed

GOLDEN = (35644095401593861, 3383081117655145, 27000618577021039)


def test_stream_seeds_stay_what_they_are() -> None:
    # golden: a change of these changes every published result
    assert stream_seed(0, "draw", 3) == GOLDEN[0]
    assert stream_seed(1, "order", 0) == GOLDEN[1]
    assert stream_seed(0) == GOLDEN[2]


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.text(max_size=5), st.text(max_size=5))
def test_streams_differ_by_seed_and_purpose(a: int, b: int, p: str, q: str) -> None:
    assert (stream_seed(a, p) == stream_seed(b, q)) == ((a, p) == (b, q))
    assert 0 <= stream_seed(a, p) < 2**56


def test_a_generator_does_not_depend_on_the_global_one() -> None:
    def drawn(seed: int) -> torch.Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return torch.rand(4, generator=Runtime(torch.device("cpu"), seed=5).generator("x", 1))

    assert torch.equal(drawn(0), drawn(1))


def test_seeded_gives_the_same_numbers_and_restores() -> None:
    runtime = Runtime(torch.device("cpu"), seed=5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with runtime.seeded("a"):
        first = torch.rand(3)
    with runtime.seeded("a"):
        second = torch.rand(3)
    with runtime.seeded("b"):
        third = torch.rand(3)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_seeded_restores_after_an_error() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with Runtime(torch.device("cpu")).seeded("a"):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(before, torch.get_rng_state())


# "meta" holds tensors without values: nothing can be computed on it
@pytest.mark.parametrize(
    "name", ["nonsense", "cuda:99", "cpu:x", "meta", "meta:0", "mkldnn", "vulkan", "privateuseone", ""]
)
def test_a_device_that_is_not_here_or_cannot_compute_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"^Device '{name}' cannot be used here. Try 'cpu', or leave it out.$"):
        pick_device(name)


def test_the_named_device_is_picked() -> None:
    assert pick_device("cpu") == torch.device("cpu")


def test_descend_steps_by_a_share_of_the_norm() -> None:
    runtime = Runtime(torch.device("cpu"))
    weight, still = torch.tensor([3.0, 4.0]), torch.tensor([1.0])
    runtime.descend([weight, still], [torch.tensor([0.0, 1e-9]), torch.zeros(1)], 0.1)
    assert torch.allclose(weight, torch.tensor([3.0, 3.5]))
    assert still.item() == 1.0
    assert runtime.steps == 1


def test_step_clips_the_gradient_and_counts() -> None:
    runtime, weight = Runtime(torch.device("cpu")), torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    runtime.step((weight * torch.tensor([30.0, 40.0])).sum(), optimizer, clip=1.0)
    assert torch.allclose(weight.detach(), torch.tensor([0.4, 0.2]), atol=1e-5)
    runtime.step(weight.sum(), optimizer)
    assert torch.allclose(weight.detach(), torch.tensor([-0.6, -0.8]), atol=1e-5)
    assert runtime.steps == 2


def test_autocast_and_memory() -> None:
    x = torch.ones(4, 4)
    with Runtime(torch.device("cpu"), precision="bf16").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with Runtime(torch.device("cpu")).autocast():
        assert (x @ x).dtype == torch.float32
    assert Runtime(torch.device("cpu")).peak_memory_bytes() > 10_000_000


@pytest.mark.parametrize(("seconds", "runs", "median"), [((9, 1, 3, 2), 4, 2), ((16, 1, 3, 2), 1, 16)])
def test_a_long_run_is_timed_once(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[int, ...], runs: int, median: int
) -> None:
    now, done = [0], list[int]()

    def run() -> None:
        now[0] += seconds[len(done)]
        done.append(len(done))

    monkeypatch.setattr(Runtime, "clock", lambda self: now[0])
    assert Runtime().median_seconds(run) == median
    assert len(done) == runs
