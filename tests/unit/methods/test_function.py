"""A plain function becomes a method that keeps the contract."""

from __future__ import annotations

import pytest
import torch

import unhot
from unhot import methods
from unhot.errors import MethodFailedError, OptionError, UndeclaredReadError
from unhot.methods.base import Data, Outcome
from unhot.methods.function import method
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import check_method, toy_problem

pytestmark = pytest.mark.usefixtures("own_methods")


def fading(model: Classifier, data: Data, runtime: Runtime, *, share: float = 0.1) -> None:
    with torch.no_grad():
        model.head_layer.weight[data.columns] *= share
        model.head_layer.bias[data.columns] -= 1.0


def test_a_function_becomes_a_method_with_its_keyword_arguments_as_hyperparameters() -> None:
    made = method("fading", uses=())(fading)
    assert methods.get("fading") is made
    assert check_method(made) is None
    toy = toy_problem()
    weight = unhot.forget(toy.model, toy.samples(), method=made(share=0.5)).classifier.head_layer.weight
    torch.testing.assert_close(weight[1], toy.model[-1].weight[1] * 0.5)
    with pytest.raises(OptionError, match="'share'"):
        made.of({"share": "much"})


def test_a_function_may_read_only_what_it_says() -> None:
    @method("peeking", uses=())
    def peeking(model: Classifier, data: Data, runtime: Runtime) -> None:
        assert len(data.forget.x)

    toy = toy_problem()
    with pytest.raises(UndeclaredReadError):
        unhot.forget(toy.model, toy.samples(), method=peeking())


def test_a_function_of_another_form_is_refused() -> None:
    with pytest.raises(OptionError, match=r"take.*data.*runtime"):
        method("short")(lambda model: None)

    def untyped(model: Classifier, data: Data, runtime: Runtime, *, share=1.0) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(OptionError, match=r"'share'.*untyped.*default"):
        method("untyped")(untyped)


def test_a_function_that_returns_something_else_is_named() -> None:
    toy = toy_problem()
    for i, wrong in enumerate((3, toy.model, Outcome(toy.model, "done"))):

        @method(f"wrong-{i}")
        def wrong_one(model: Classifier, data: Data, runtime: Runtime) -> object:
            return wrong  # noqa: B023 - it is called in this round

        with pytest.raises(MethodFailedError, match=rf"The run of wrong-{i} returned (3|Seq|an Outcome of Sequential)"):
            unhot.forget(toy.model, toy.samples(), method=wrong_one())
