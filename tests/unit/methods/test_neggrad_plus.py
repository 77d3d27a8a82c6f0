from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

import support
from unhot.methods.neggrad_plus import NegGradPlus
from unhot.testing import Toy, toy_problem

forget = partial(support.forget, NegGradPlus)


def slow_loss(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.softmax(1)
    return sum((-p[i, y[i]].log() for i in range(len(y))), start=torch.zeros(())) / len(y)


def without_dropout() -> Toy:
    toy = toy_problem(dtype=torch.float64)
    toy.model[9].p = 0.0
    return toy


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
@pytest.mark.parametrize(("clip", "ceiling"), [(1e9, 1e9), (0.05, 1e9), (1e9, 1e-9)])
def test_a_step_is_the_gradient_of_the_papers_loss(classes: tuple[int, ...], clip: float, ceiling: float) -> None:
    toy, lr, beta = without_dropout(), 0.02, 0.7
    settings = {"epochs": 1, "beta": beta, "lr": lr, "batch_size": 1000, "sample_batch": 1000}
    after = forget(toy, *classes, **settings, clip=clip, ceiling=ceiling).model.state_dict()
    (x, y), samples, net = toy.retain(*classes), toy.samples(*classes).images, toy.model.train()
    logits = net(torch.cat([x, samples.x]))
    loss = beta * slow_loss(logits[: len(x)], y)
    if ceiling > 1:
        loss = loss - (1 - beta) * slow_loss(logits[len(x) :], samples.y)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert (norm > clip) == (clip == 0.05)  # one of the clips cuts this gradient, the other one does not
    for (name, weight), gradient in zip(net.named_parameters(), gradients, strict=True):
        expected = weight - lr * gradient * min(1.0, clip / norm)
        torch.testing.assert_close(after[name], expected.detach(), msg=name, atol=1e-7, rtol=1e-4)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(after[name], buffer, msg=name)


def test_the_net_survives_a_long_ascent() -> None:
    """Known failure of implementations: the loss on the samples goes to infinity, and the net with it."""
    toy = toy_problem()
    settings = {"epochs": 20, "beta": 0.6, "lr": 0.05, "batch_size": 24}
    accuracy, loss = {}, {}
    for ceiling in (8.0, 1e9):
        result, (x, y), mine = forget(toy, **settings, ceiling=ceiling), toy.retain(), toy.samples().images
        with torch.no_grad():
            accuracy[ceiling] = float((result.model(x).argmax(1) == y).float().mean())
            loss[ceiling] = float(slow_loss(result.model(mine.x), mine.y))
    assert accuracy[8.0] > 0.9
    assert loss[8.0] < 100 < loss[1e9]


def test_samples_are_gone_through_again_and_are_never_more_than_the_retained_images() -> None:
    toy, passed = toy_problem(), []
    toy.model[0].register_forward_pre_hook(lambda _, args: passed.append(args[0]))
    result = forget(toy, retain=tuple(part[:35] for part in toy.retain()), epochs=2, batch_size=16, sample_batch=5)
    assert result.record.cost.steps == 6
    passed = passed[-8:-2]  # the last two evaluate what is left of the class and of the others
    assert [len(x) for x in passed] == [16 + 5, 16 + 3, 3 + 3, 16 + 3, 16 + 5, 3 + 3]  # of 5 and 3 samples
    samples = toy.samples().images.x
    first = torch.cat([passed[0][16:], passed[1][16:]])
    assert sorted(first.sum((1, 2, 3)).tolist()) == sorted(samples.sum((1, 2, 3)).tolist())
