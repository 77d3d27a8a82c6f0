"""When a run ends, and which state of its weights it leaves."""

from __future__ import annotations

import math

import pytest
import torch

from unhot.methods.parts.stopping import Stop, probability


def test_it_ends_when_the_measure_is_low_enough_or_the_rounds_are_used_up() -> None:
    stop = Stop(0.2, 2)
    assert [stop(0.9), stop(0.2)] == [False, True]
    assert (stop.value, stop.reason) == (0.2, "probability of the forgotten classes at most 0.2")
    stop = Stop(0.2, 2, measure="distance")
    assert [stop(0.9), stop(0.3), stop(0.8)] == [False, False, True]
    assert (stop.value, stop.reason) == (0.8, "all steps done")
    assert Stop(0.2)(0.9, last=True)


@pytest.mark.parametrize(
    ("measures", "kept", "reason"),
    [
        ([0.9, 0.4, 0.6, 0.7], 1.0, "all steps done"),
        ([0.9, 0.4, math.nan], 1.0, "not finite: rolled back"),
        ([0.9, 0.8, 0.1], 2.0, "probability of the forgotten classes at most 0.2"),
    ],
)
def test_weights_that_are_watched_are_left_in_their_best_state(measures: list[float], kept: float, reason: str) -> None:
    weight = torch.zeros(3, requires_grad=True)
    stop = Stop(0.2, 3, [weight])
    for measure in measures:
        ended = stop(measure)
        if not ended:
            weight.data += 1
    assert ended
    assert stop.reason == reason
    assert stop.value == min(m for m in measures if math.isfinite(m))
    assert weight.tolist() == [kept] * 3


def test_the_probability_of_several_columns_is_their_sum_in_the_mean() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -100.0, -100.0]])
    assert probability(logits, [0, 1]) == pytest.approx((0.5 + 1.0) / 2)
