from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

import support
from unhot.methods.base import ForgetResult
from unhot.methods.neggrad import NegGrad
from unhot.testing import FORGOTTEN, Toy, toy_problem

forget = partial(support.forget, NegGrad)


def probability(toy: Toy, result: ForgetResult, *classes: int) -> float:
    with torch.no_grad():
        return float(result.model(toy.samples(*classes).images.x).softmax(1)[:, list(classes)].sum(1).mean())


def test_steps_go_up_the_cross_entropy() -> None:
    toy, lr = toy_problem(dtype=torch.float64), 0.01
    net, (x, y) = copy.deepcopy(toy.model).eval(), (toy.samples(1, 3).images.x, toy.samples(1, 3).images.y)
    momentum = [torch.zeros_like(w) for w in net.parameters()]
    for _ in range(3):
        p = net(x).softmax(1)
        loss = -torch.stack([p[i, k].log() for i, k in enumerate(y.tolist())]).mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for w, m, g in zip(net.parameters(), momentum, gradients, strict=True):
                m.mul_(0.9).add_(g)
                w.add_(lr * m)
    result = forget(toy, 1, 3, lr=lr, steps=3, clip=1e9, stop_at=0.0)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name)


def test_it_stops_at_the_first_step_that_reaches_the_bound() -> None:
    toy = toy_problem()
    stopped = forget(toy, stop_at=0.2)
    steps = stopped.record.cost.steps
    assert stopped.record.stop_reason == "probability of the forgotten classes at most 0.2"
    assert probability(toy, stopped, FORGOTTEN) == pytest.approx(stopped.record.notes["probability_left"], rel=1e-4)
    assert probability(toy, stopped, FORGOTTEN) <= 0.2
    before = forget(toy, stop_at=0.0, steps=steps - 1)
    assert (before.record.stop_reason, before.record.cost.steps) == ("all steps done", steps - 1)
    assert probability(toy, before, FORGOTTEN) > 0.2
    again = forget(toy, stop_at=0.0, steps=steps)
    assert again.record.weights_sha256 == stopped.record.weights_sha256


def test_what_is_left_is_of_all_classes_to_forget() -> None:
    toy = toy_problem()
    result = forget(toy, 0, 3, steps=3, stop_at=0.0)
    assert probability(toy, result, 0, 3) == pytest.approx(result.record.notes["probability_left"], rel=1e-4)


def test_steps_are_no_longer_than_the_clip_lets_them() -> None:
    toy = toy_problem(dtype=torch.float64)
    for clip, length in ((0.01, 0.2 * 0.01), (0.02, 0.2 * 0.02)):  # the gradient itself is longer than both
        after = dict(forget(toy, lr=0.2, clip=clip, steps=1, stop_at=0.0).model.named_parameters())
        moved = torch.stack([(after[n] - w).detach().norm() for n, w in toy.model.named_parameters()]).norm()
        assert float(moved) == pytest.approx(length, rel=1e-3)
