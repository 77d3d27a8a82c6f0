from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from support import CPU
from unhot.data.samples import draw
from unhot.methods.base import ForgetResult
from unhot.methods.finetune import Finetune
from unhot.testing import Toy, toy_problem


def finetune(toy: Toy, **settings: Any) -> ForgetResult:
    return Finetune.of(settings)(toy.model, toy.samples(), retain=toy.retain(), runtime=CPU)


def test_two_passes_are_two_steps_of_gradient_descent_in_train_mode() -> None:
    toy, lr = toy_problem(dtype=torch.float64), 0.03
    toy.model[9].p = 0.0  # dropout, which would draw
    after = finetune(toy, epochs=2, lr=lr, batch_size=1000).model.state_dict()
    (x, y), net = toy.retain(), toy.model.train()
    velocity = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for _ in range(2):
        p = net(x).softmax(1)[torch.arange(len(y)), y]
        gradients = torch.autograd.grad(-p.log().mean(), list(net.parameters()))
        with torch.no_grad():
            for (name, weight), gradient in zip(net.named_parameters(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] + gradient + 5e-4 * weight
                weight -= lr * velocity[name]
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(after[name], expected, msg=name)


def test_statistics_move_to_those_of_the_retained_images() -> None:
    toy = toy_problem()
    before = toy.model[1].running_mean.clone()
    result = finetune(toy, epochs=1, lr=1e-9, batch_size=1000)
    seen = toy.model[0](toy.retain()[0]).mean((0, 2, 3)).detach()
    torch.testing.assert_close(result.model[1].running_mean, 0.9 * before + 0.1 * seen)
    assert not result.model.training


def test_the_samples_are_not_looked_at() -> None:
    toy = toy_problem()
    runs = [
        Finetune(epochs=2)(toy.model, draw((toy.x, toy.y), [1], 3, seed), retain=(toy.x, toy.y), runtime=CPU)
        for seed in (0, 1)
    ]
    assert runs[0].record.weights_sha256 == runs[1].record.weights_sha256


def test_a_pass_is_over_all_retained_images_in_batches() -> None:
    toy = toy_problem()
    assert finetune(toy, epochs=3, batch_size=50).record.cost.steps == 3 * 2
    assert finetune(toy, epochs=0).record.weights_sha256 == finetune(toy, epochs=0).record.model_sha256


def test_it_learns() -> None:
    toy = toy_problem()
    (x, y), before = toy.retain(), toy.model
    after = finetune(toy, epochs=10, lr=0.05, batch_size=16).model
    with torch.no_grad():
        assert cross_entropy(after(x), y) < cross_entropy(before(x), y)
