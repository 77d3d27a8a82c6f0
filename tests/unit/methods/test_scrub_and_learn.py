from __future__ import annotations

import copy

import pytest
import torch

from support import CPU
from unhot.methods.scrub_and_learn import ScrubAndLearn
from unhot.testing import toy_problem


@pytest.mark.parametrize("classes", [(1,), (0, 1)])
def test_the_labels_are_the_originals_all_along(classes: tuple[int, ...]) -> None:
    toy, lr = toy_problem(dtype=torch.float64), 0.05
    net, x = copy.deepcopy(toy.model).eval(), toy.samples(*classes).images.x
    with torch.no_grad():
        ranked = [row.argsort(descending=True).tolist() for row in net(x)]
    labels = [next(k for k in order if k not in classes) for order in ranked]
    momentum = [torch.zeros_like(w) for w in net.parameters()]
    for _ in range(4):
        p = net(x).softmax(1)
        loss = -torch.stack([p[i, k].log() for i, k in enumerate(labels)]).mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for w, m, g in zip(net.parameters(), momentum, gradients, strict=True):
                m.mul_(0.9).add_(g)
                w.sub_(lr * m)
    result = ScrubAndLearn(lr=lr, steps=4)(toy.model, toy.samples(*classes), runtime=CPU)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name)


def test_steps_are_as_many_as_asked_in_batches_of_any_size() -> None:
    toy = toy_problem()
    runs = {n: ScrubAndLearn(steps=5, batch_size=n)(toy.model, toy.samples(), runtime=CPU).record for n in (3, 8)}
    assert [r.cost.steps for r in runs.values()] == [5, 5]
    assert runs[3].weights_sha256 != runs[8].weights_sha256
