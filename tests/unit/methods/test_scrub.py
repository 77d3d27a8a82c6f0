from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import support
from unhot.methods.scrub import Scrub, divergence
from unhot.runtime import Runtime
from unhot.testing import toy_problem

DOUBLE = torch.float64


class Watched(Runtime):
    """Notes every step."""

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
        noted.append((round(optimizer.param_groups[0]["lr"], 12), float(loss.detach()) < 0))
        super().step(loss, optimizer, clip)


noted: list[tuple[float, bool]] = []


forget = partial(support.forget, Scrub)


def slow_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    total = torch.zeros((), dtype=student.dtype)
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        p, q = t.exp() / t.exp().sum(), s.exp() / s.exp().sum()
        total = total + sum(p[k] * (p[k].log() - q[k].log()) for k in range(len(p)))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_a_sum_over_the_classes_and_a_mean_over_the_images(temperature: float) -> None:
    """Known bug of implementations: reduction="mean" divides by the number of classes too."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(5, 4, generator=generator, dtype=DOUBLE) for _ in range(2))
    torch.testing.assert_close(
        divergence(student, teacher, temperature), slow_divergence(student, teacher, temperature)
    )


def test_divergence_of_two_classes_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(divergence(student, teacher, 1.0)) == pytest.approx(expected)


def test_the_teacher_itself_is_where_the_divergence_has_no_gradient() -> None:
    """Why a max epoch comes after a min epoch."""
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(z, z.detach(), 2.0), z)
    torch.testing.assert_close(gradient, torch.zeros_like(z))


class SlowAdam:
    def __init__(self, net: nn.Module) -> None:
        self.t = 0
        self.m, self.v = ([torch.zeros_like(p) for p in net.parameters()] for _ in range(2))

    def step(self, net: nn.Module, loss: Tensor, lr: float) -> None:
        self.t += 1
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for i, (weight, gradient) in enumerate(zip(net.parameters(), gradients, strict=True)):
                g = gradient + 5e-4 * weight
                self.m[i], self.v[i] = 0.9 * self.m[i] + 0.1 * g, 0.999 * self.v[i] + 0.001 * g**2
                mean, square = self.m[i] / (1 - 0.9**self.t), self.v[i] / (1 - 0.999**self.t)
                weight -= lr * mean / (square.sqrt() + 1e-8)


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_min_and_max_epochs_are_those_of_the_paper(classes: tuple[int, ...]) -> None:
    toy, lr, temperature, alpha, gamma = toy_problem(dtype=DOUBLE), 1e-3, 2.0, 0.4, 0.8
    toy.model[9].p = 0.0  # dropout, which would draw
    settings = {"lr": lr, "temperature": temperature, "alpha": alpha, "gamma": gamma, "batch_size": 1000}
    result = forget(toy, *classes, epochs=2, max_epochs=1, max_steps=2, **settings)
    (x, y), samples, net = toy.retain(*classes), toy.samples(*classes).images, toy.model
    with torch.no_grad():
        told, told_f = net(x), net(samples.x)  # the teacher is the original, in eval mode, throughout
    adam = SlowAdam(net)
    for part in ("min", "max", "max", "min"):
        # half of two epochs is one: the last min epoch is at a tenth of the learning rate
        rate = lr / 10 if adam.t == 3 else lr
        net.train(part == "min")
        if part == "min":
            z = net(x)
            crossed = -z.softmax(1)[torch.arange(len(y)), y].log().mean()
            adam.step(net, alpha * slow_divergence(z, told, temperature) + gamma * crossed, rate)
        else:
            adam.step(net, -slow_divergence(net(samples.x), told_f, temperature), rate)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name, atol=1e-6, rtol=1e-4)


def test_the_last_epochs_are_min_epochs_and_the_learning_rate_falls() -> None:
    noted.clear()
    settings = {"epochs": 10, "max_epochs": 3, "max_steps": 2, "lr": 5e-4, "batch_size": 1000}
    forget(toy_problem(), runtime=Watched(torch.device("cpu")), **settings)
    assert [lr for lr, ascent in noted if not ascent] == [5e-4] * 5 + [5e-5] * 3 + [5e-6, 5e-7]
    assert [ascent for _, ascent in noted] == [False, True, True] * 3 + [False] * 7
    noted.clear()
    forget(toy_problem(), runtime=Watched(torch.device("cpu")), **settings | {"epochs": 2})
    assert [ascent for _, ascent in noted] == [False, True, True, False]


def test_a_max_epoch_goes_through_few_samples_again() -> None:
    toy, ascended = toy_problem(), []

    def note(module: nn.Module, args: tuple[Tensor]) -> None:
        if torch.is_grad_enabled() and not module.training:
            ascended.append(args[0])

    toy.model[0].register_forward_pre_hook(note)
    forget(toy, epochs=2, max_epochs=1, max_steps=5, batch_size=3)
    ascended = ascended[-5:]  # before, the net was checked
    assert [len(x) for x in ascended] == [3, 3, 2, 3, 3]
    samples = toy.samples().images.x
    assert sorted(torch.cat(ascended[:3]).sum((1, 2, 3)).tolist()) == sorted(samples.sum((1, 2, 3)).tolist())
