from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import support
from support import CPU
from unhot.methods.jit import Jit
from unhot.models.classifier import Classifier
from unhot.testing import FORGOTTEN, toy_problem

DOUBLE = torch.float64


forget = partial(support.forget, Jit)


def slow_slope(net: nn.Module, x: Tensor, sigma: float, copies: int, noise: torch.Generator) -> Tensor:
    """Image by image, with the outputs on the copies as numbers."""
    total = torch.zeros((), dtype=DOUBLE)
    for _ in range(copies):
        xi = sigma * torch.randn(x.shape, generator=noise).double()
        for i in range(len(x)):
            target = net((x + xi)[i : i + 1]).tolist()[0]
            distance = sum((z - t) ** 2 for z, t in zip(net(x[i : i + 1])[0], target, strict=True)) ** 0.5
            total = total + distance / xi[i].norm()
    return total / copies / len(x)


def test_steps_are_along_the_gradient_of_one_batch_each() -> None:
    """Known bug of the released code: gradients are not cleared, so that a step adds those of all steps before it."""
    toy, lr = toy_problem(dtype=DOUBLE), 0.05
    net, x = copy.deepcopy(toy.model).eval(), toy.samples().images.x
    noise = CPU.generator("noise")
    for _ in range(3):
        # the samples are shuffled, and noise is drawn by place: one sample knows no order
        loss = slow_slope(net, x[:1], 0.5, 2, noise)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for w, g in zip(net.parameters(), gradients, strict=True):
                w -= lr * g
    only = toy.samples()
    only = type(only)(only.images.select(torch.tensor([0])), only.classes)
    method = Jit(lr=lr, steps=3, copies=2, sigma=0.5, clip=1e9, stop_at=0.0)
    result = method(toy.model, only, seed=0, runtime=CPU)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name)


def test_noise_is_not_clipped_to_the_range_of_the_batch() -> None:
    """The released code clips it, and so shrinks the noise where images are black or white."""
    toy = toy_problem(dtype=DOUBLE)
    model, x = Classifier.wrap(toy.model.eval(), toy.x[:2]), torch.zeros(2, 1, 8, 8, dtype=DOUBLE)
    shown: list[Tensor] = []
    handle = model.module.register_forward_pre_hook(lambda _, args: shown.append(args[0].clone()))
    Jit(copies=4, sigma=0.7).slope(model, x, torch.zeros(2, 4, dtype=DOUBLE), CPU.generator("noise"))
    handle.remove()
    assert len(shown) == 4
    assert torch.stack(shown).std() == pytest.approx(0.7, rel=0.1)


def test_the_length_of_a_step_is_bounded() -> None:
    """What the output chases moves with it: without a clip it can run away."""
    toy = toy_problem(dtype=DOUBLE)
    result = forget(toy, lr=2.0, clip=0.01, steps=1, stop_at=0.0, copies=2)
    after = dict(result.model.named_parameters())
    moved = float(torch.stack([(after[n] - w).detach().norm() for n, w in toy.model.named_parameters()]).norm())
    assert moved == pytest.approx(2.0 * 0.01, rel=1e-3)


def test_it_stops_when_the_samples_are_forgotten() -> None:
    toy = toy_problem()
    result = forget(toy, steps=300, clip=0.05, stop_at=0.5, copies=3)
    assert result.record.stop_reason == "probability of the forgotten classes at most 0.5"
    assert 0 < result.record.cost.steps < 300
    with torch.no_grad():
        left = float(result.model(toy.samples().images.x).softmax(1)[:, FORGOTTEN].mean())
    assert left == pytest.approx(result.record.notes["probability_left"], rel=1e-4)
    assert left <= 0.5
