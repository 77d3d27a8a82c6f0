"""nhle-cwm within its budget of loss on other classes, on nets that have little to spare."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import plain_nets
from support import DEVICE
from unhot.data.samples import draw
from unhot.data.source import Source
from unhot.methods.base import ForgetResult
from unhot.methods.nhle_cwm import NhleCwm
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

pytestmark = pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")
NOTE = "loss_on_other_classes"


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def forget(toy: Toy, **settings: Any) -> ForgetResult:
    return NhleCwm.of(settings)(toy.model, toy.samples(), runtime=Runtime(DEVICE))


@pytest.mark.parametrize("settings", [{"budget": 0.005}, {"budget": 0.0}, {"step_size": 1.0, "preconditioning": 0.0}])
def test_where_no_step_is_within_the_budget_only_the_cut_is_left(toy: Toy, settings: dict[str, float]) -> None:
    before = {k: v.clone() for k, v in toy.model.state_dict().items()}
    result = forget(toy, **settings)
    assert result.record.stop_reason == "the budget allows no step"
    assert result.record.notes[NOTE] == {"estimate": 0, "at_most": 0}
    assert result.record.cost.steps == 2  # one with each of the two sets of spared images
    moved = {k for k, v in result.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"10.weight", "10.bias"}
    assert (result.model(toy.x).argmax(1) != 1).all()


def test_steps_are_taken_back_until_the_estimate_is_within_the_budget(toy: Toy) -> None:
    settings = {"step_size": 0.03, "steps": 30, "stop_at": 0.0, "preconditioning": 10.0}
    free, held = forget(toy, budget=0.99, **settings), forget(toy, budget=0.02, **settings)
    assert free.record.notes[NOTE]["at_most"] > 0.02
    assert 0 < held.record.notes[NOTE]["at_most"] <= 0.02
    assert held.record.stop_reason == "another step might cost the other classes more than 0.02"
    assert free.record.notes["probability_left"] < held.record.notes["probability_left"]


def test_a_budget_of_everything_estimates_nothing(toy: Toy) -> None:
    assert set(forget(toy, budget=1).record.notes) == {"probability_left"}


@pytest.mark.parametrize("net", ["mlp", "conv3", "conv3-gn"])
def test_plain_nets_keep_the_promise_on_digits(net: str, digits: Source, keep_generators: None) -> None:
    """Nets that lost up to .08 of their accuracy on the other digits before there was a budget."""
    train, spec = digits.train_images, digits.input
    runtime = Runtime(DEVICE)
    with runtime.seeded("plain"):
        module = plain_nets.NETS[net](1, spec.height)
    plain_nets.fit(module, train.inputs(torch.arange(len(train)), spec, DEVICE), train.y, 60)
    x, y = digits.test_images.inputs(torch.arange(len(digits.test_images)), spec, DEVICE), digits.test_images.y
    model = Classifier.wrap(module.eval(), example=x[:2], class_names=train.class_names, input=spec)
    problem = plain_nets.Problem(model, train, x, y)
    for digit in (2, 7):
        result = NhleCwm()(model, draw(train, [digit], shots=16), runtime=runtime, force=True)
        masked = cut_classes(model.copy(), [model.classes[digit]], "mask")
        before, after = (plain_nets.logits(m, x) for m in (masked, result.classifier))
        found = plain_nets.losses(problem, before, after, digit)
        assert found["forget_accuracy"] == 0
        assert found["retain_drop_masked"] <= 0.035
        assert result.record.notes[NOTE]["at_most"] <= 0.035
