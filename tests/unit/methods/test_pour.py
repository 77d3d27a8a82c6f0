from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from support import CPU
from unhot.errors import SampleWarning
from unhot.methods.base import ForgetResult
from unhot.methods.pour import PourD, PourP
from unhot.models.classifier import Classifier
from unhot.testing import Toy, toy_problem

DOUBLE = torch.float64


def project(toy: Toy, *classes: int, model: Classifier | None = None, **settings: Any) -> ForgetResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleWarning)
        return PourP.of(settings)(model or toy.model, toy.samples(*classes), runtime=CPU, force=True)


def distil(toy: Toy, *classes: int, **settings: Any) -> ForgetResult:
    return PourD.of(settings)(toy.model, toy.samples(*classes), runtime=CPU)


def features(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.features(x)


def original(toy: Toy) -> Classifier:
    return Classifier.wrap(toy.model, toy.x[:2])


def slow_projection(rows: Tensor) -> Tensor:
    """I - W^T (W W^T)^-1 W; for one row I - w w^T / |w|^2."""
    return torch.eye(rows.shape[1]).to(rows) - rows.T @ torch.linalg.inv(rows @ rows.T) @ rows


@pytest.mark.parametrize("classes", [(1,), (2, 0)])
def test_the_features_are_those_of_the_closed_form(classes: tuple[int, ...]) -> None:
    toy = toy_problem(dtype=DOUBLE)
    model = original(toy)
    h, head = features(model, toy.x), model.head_layer
    p = slow_projection(head.weight.detach()[list(classes)])
    if len(classes) == 1:
        w = head.weight.detach()[classes[0]]
        torch.testing.assert_close(p, torch.eye(len(w)).to(w) - torch.outer(w, w) / w.dot(w))
    result = project(toy, *classes)
    torch.testing.assert_close(features(result.classifier, toy.x), h @ p)
    with torch.no_grad():
        torch.testing.assert_close(result.model(toy.x), head(h @ p))
        torch.testing.assert_close(
            result.model(toy.x)[:, list(classes)], head.bias[list(classes)].expand(len(toy.x), -1)
        )


def test_folded_into_the_head_only_the_outputs_are_the_same() -> None:
    toy = toy_problem(dtype=DOUBLE)
    layer, head = project(toy), project(toy, deploy="head")
    with torch.no_grad():
        torch.testing.assert_close(head.model(toy.x), layer.model(toy.x))
    assert torch.equal(features(head.classifier, toy.x), features(original(toy), toy.x))
    assert set(head.model.state_dict()) == set(toy.model.state_dict())


def test_rows_that_say_the_same_are_taken_out_once() -> None:
    toy = toy_problem(dtype=DOUBLE)
    head = original(toy).head_layer
    with torch.no_grad():
        head.weight[2] = -2 * head.weight[1]
        head.bias[1:3] = 9.0  # or no sample would be taken for these classes
    h = features(original(toy), toy.x)
    result = project(toy, 1, 2)
    assert result.classifier.module[-1][0].away.shape == (1, 12)
    torch.testing.assert_close(features(result.classifier, toy.x), h @ slow_projection(head.weight.detach()[1:2]))


@pytest.mark.parametrize("cut", ["none", "mask", "excise"])
def test_a_second_class_brings_nothing_of_the_first_back(cut: str) -> None:
    toy = toy_problem(dtype=DOUBLE)
    w = original(toy).head_layer.weight.detach().clone()
    first = project(toy, cut=cut)  # the bias of a class whose row is left wins on this toy
    second = project(toy, 0, model=first.classifier, cut=cut)
    h = features(second.classifier, toy.x)
    assert [n for n, _ in second.model.named_modules() if "10" in n] == ["10", "10.0", "10.1"]
    torch.testing.assert_close(h @ w[:2].T, torch.zeros(len(h), 2, dtype=DOUBLE))
    assert [c.index for c in second.classifier.forgotten] == ([0] if cut == "none" else [1, 0])


def test_a_step_of_distillation_is_the_gradient_of_the_distance() -> None:
    toy, lr = toy_problem(dtype=DOUBLE), 1e-2
    model, x = original(toy), toy.samples().images.x
    h = features(model, x)
    target = h @ slow_projection(model.head_layer.weight.detach()[1:2])
    toy.model.eval()
    distance = sum(((model.features(a[None])[0] - t) ** 2).sum() for a, t in zip(x, target, strict=True))
    names = [n for n, _ in toy.model.named_parameters() if not n.startswith("10.")]
    weights = dict(toy.model.named_parameters())
    gradients = torch.autograd.grad(distance / (h - target).pow(2).sum(), [weights[n] for n in names])
    after = distil(toy, lr=lr, steps=1).model.state_dict()
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(after[name], weights[name].detach() - lr * gradient)
    for name in ("10.weight", "10.bias"):
        assert torch.equal(after[name], weights[name])


def test_distillation_comes_near_the_projection() -> None:
    toy = toy_problem(dtype=DOUBLE)
    x = toy.samples().images.x
    goal, start = features(project(toy).classifier, x), features(original(toy), x)
    result = distil(toy, lr=0.02, steps=60, stop_at=0)
    end = features(result.classifier, x)
    assert result.record.stop_reason == "all steps done"
    assert (end - goal).norm() < 0.7 * (start - goal).norm()


def test_it_stops_when_the_distance_is_small_enough() -> None:
    toy = toy_problem()
    result = distil(toy, lr=0.01, steps=200, stop_at=0.5)
    assert result.record.stop_reason == "distance at most 0.5"
    assert 1 < result.record.cost.steps < 200
    assert result.record.notes["distance"] <= 0.5
    shorter = distil(toy, lr=0.01, steps=result.record.cost.steps - 1, stop_at=0.5)
    assert (shorter.record.stop_reason, shorter.record.notes["distance"] > 0.5) == ("all steps done", True)


def test_without_steps_nothing_changes() -> None:
    result = distil(toy_problem(), steps=0)
    assert result.record.weights_sha256 == result.record.model_sha256
