from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

import support
from unhot.methods import salun
from unhot.methods.base import Batch
from unhot.methods.salun import SalUn
from unhot.models.classifier import Classifier
from unhot.testing import Toy, toy_problem

DOUBLE = torch.float64


forget = partial(support.forget, SalUn)


def batch(toy: Toy, *classes: int) -> tuple[Classifier, Batch]:
    model, images = Classifier.wrap(toy.model.eval(), toy.x[:2]), toy.samples(*classes).images
    return model, Batch(images.x, images.y, torch.zeros(()))


def slow_mask(net: nn.Module, forget: Batch, share: float) -> list[Tensor]:
    """The weights of the greatest gradients of the mean loss, over all weights together."""
    loss = sum(cross_entropy(net(x[None]), y[None]) for x, y in zip(forget.x, forget.y, strict=True))
    gradients = torch.autograd.grad(loss / len(forget.y), list(net.parameters()))
    sizes = sorted((abs(v) for g in gradients for v in g.flatten().tolist()), reverse=True)
    least = sizes[round(share * len(sizes)) - 1]
    return [g.abs() >= least for g in gradients]


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("classes", [(1,), (0, 2)])
def test_salient_are_the_weights_of_the_greatest_gradients(share: float, classes: tuple[int, ...]) -> None:
    toy = toy_problem(dtype=DOUBLE)
    model, samples = batch(toy, *classes)
    found = SalUn(share=share).salient(model, samples)
    for mine, expected in zip(found, slow_mask(toy.model, samples, share), strict=True):
        assert torch.equal(mine, expected)


def test_no_more_than_the_share_is_salient_where_most_gradients_are_zero() -> None:
    """Known trap: the median is zero, and every weight is as great as that."""
    net = nn.Sequential(nn.Flatten(), skip_init(nn.Linear, 100, 2, bias=False))
    nn.init.zeros_(net[1].weight)
    x = torch.zeros(1, 1, 10, 10)
    x[0, 0, 0, 0] = 1.0
    found = SalUn(share=0.25).salient(Classifier.wrap(net), Batch(x, torch.tensor([0]), torch.zeros(())))
    assert int(found[0].sum()) == 50
    assert found[0][:, 0].all()


@pytest.mark.parametrize("classes", [(0, 1, 3), (0, 2, 3)])
def test_a_step_is_the_gradient_of_the_papers_loss(classes: tuple[int, ...]) -> None:
    toy, lr, alpha = toy_problem(dtype=DOUBLE), 0.02, 0.6
    toy.model[9].p = 0.0  # dropout, which would draw
    mask = slow_mask(*_net_and_batch(toy, *classes), 0.5)
    settings = {"epochs": 1, "share": 0.5, "alpha": alpha, "lr": lr, "batch_size": 1000, "sample_batch": 1000}
    after = forget(toy, *classes, **settings).model.state_dict()
    (only,) = {0, 1, 2, 3} - set(classes)  # the one label that can be drawn
    (x, y), mine, net = toy.retain(*classes), toy.samples(*classes).images.x, toy.model.train()
    p = net(torch.cat([x, mine])).softmax(1)
    loss = alpha * -p[torch.arange(len(x)), y].log().mean() - p[len(x) :, only].log().mean()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    for (name, weight), gradient, chosen in zip(net.named_parameters(), gradients, mask, strict=True):
        expected = weight - lr * chosen * (gradient + 5e-4 * weight)
        torch.testing.assert_close(after[name], expected.detach(), msg=name)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(after[name], buffer, msg=name)


def _net_and_batch(toy: Toy, *classes: int) -> tuple[nn.Module, Batch]:
    model, samples = batch(toy, *classes)
    return model.module, samples


def test_weights_that_are_not_salient_do_not_move() -> None:
    """Known bug of the released code: weight decay and momentum moved them."""
    toy = toy_problem()
    masks = SalUn(share=0.3).salient(*batch(toy))
    after = forget(toy, share=0.3, epochs=3, batch_size=16, lr=0.02).model
    moved = 0
    for mask, old, new in zip(masks, toy.model.parameters(), after.parameters(), strict=True):
        assert torch.equal(new[~mask], old[~mask])
        moved += int((new != old).sum())
    assert moved > 0.9 * sum(int(m.sum()) for m in masks)


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_random_labels_are_of_retained_classes_and_drawn_anew(
    classes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known bug of the released code: labels are drawn from all classes, with the one to forget."""
    seen: list[list[int]] = []

    def noted(logits: Tensor, y: Tensor, **options: Any) -> Tensor:
        seen.append(y.tolist())
        return cross_entropy(logits, y, **options)

    monkeypatch.setattr(salun, "cross_entropy", noted)
    forget(toy_problem(), *classes, epochs=10, batch_size=24, sample_batch=7)
    drawn = seen[2::2]  # after the mask's, of each step the retained images' and the samples'
    assert len(drawn) == 10 * (3 if len(classes) == 1 else 2)
    assert {y for labels in drawn for y in labels} == {0, 1, 2, 3} - set(classes)
    assert len({tuple(labels) for labels in drawn}) > 10


def test_classes_that_were_forgotten_before_are_no_label() -> None:
    model = Classifier.wrap(toy_problem().model)
    assert model.others([1]).tolist() == [0, 2, 3]
    assert model.mark_forgotten([model.classes[3]]).others([1]).tolist() == [0, 2]
    excised = dataclasses.replace(model.mark_forgotten([model.classes[0]]), classes=model.classes[1:])
    assert excised.others([0]).tolist() == [1, 2]
