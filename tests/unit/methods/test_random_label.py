from __future__ import annotations

import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor

import support
from support import CPU
from unhot.methods.base import Batch, Data
from unhot.methods.random_label import RandomLabel
from unhot.models.classifier import Classifier
from unhot.testing import Toy, toy_problem

forget = partial(support.forget, RandomLabel)


def drawn(model: Classifier, toy: Toy, *classes: int, seed: int = 0) -> Tensor:
    images = toy.samples(*classes).images
    labels = tuple(model.classes[c] for c in classes)
    batch = Batch(images.x, images.y, torch.zeros(len(images), 4))
    data = Data(labels, list(classes), ("forget",), batch, None)
    return RandomLabel().labels(model, data, dataclasses.replace(CPU, seed=seed))


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_a_step_is_towards_the_labels(classes: tuple[int, ...]) -> None:
    toy, lr = toy_problem(dtype=torch.float64), 0.05
    net, x = copy.deepcopy(toy.model).eval(), toy.samples(*classes).images.x
    labels = drawn(Classifier.wrap(net, x[:2]), toy, *classes)
    p = net(x).softmax(1)
    loss = -torch.stack([p[i, k].log() for i, k in enumerate(labels.tolist())]).mean()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    after = dict(forget(toy, *classes, lr=lr, steps=1).model.named_parameters())
    for (name, w), g in zip(net.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(after[name].detach(), w.detach() - lr * g, msg=name)


def test_no_label_is_of_a_class_to_forget() -> None:
    """Known bug of circulating code: labels are drawn over all classes."""
    toy = toy_problem()
    model = Classifier.wrap(toy.model, toy.x[:2])
    assert {int(k) for seed in range(8) for k in drawn(model, toy, 1, 3, seed=seed)} == {0, 2}


def test_no_label_is_of_a_class_that_was_forgotten_before() -> None:
    toy = toy_problem()
    model = Classifier.wrap(toy.model, toy.x[:2])
    found = {int(k) for seed in range(8) for k in drawn(model.mark_forgotten([model.classes[0]]), toy, 1, seed=seed)}
    assert found == {2, 3}


def test_another_seed_draws_other_labels() -> None:
    toy = toy_problem()
    model = Classifier.wrap(toy.model, toy.x[:2])
    assert torch.equal(drawn(model, toy, 1, seed=4), drawn(model, toy, 1, seed=4))
    assert not torch.equal(drawn(model, toy, 1, seed=4), drawn(model, toy, 1, seed=5))


def test_a_sample_keeps_its_label_from_pass_to_pass() -> None:
    """Labels that were drawn anew would average out, and none would be learnt."""
    toy = toy_problem()
    labels = drawn(Classifier.wrap(toy.model, toy.x[:2]), toy, 1)
    assert len(labels.unique()) > 1
    result = forget(toy, lr=0.02, steps=200, batch_size=4)
    with torch.no_grad():
        assert torch.equal(result.model(toy.samples().images.x).argmax(1), labels)
