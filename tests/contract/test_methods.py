"""Every registered method keeps the contract, and check_method finds what breaks it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import cross_entropy
from toy_settings import ALTERNATIVES, HEAD_ONLY, SETTINGS

from unhot import draw, methods
from unhot.methods.base import Data, Method, Outcome
from unhot.methods.mask import Mask
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import replace_layer
from unhot.models.nets import VitTiny
from unhot.runtime import Runtime
from unhot.testing import check_method, toy_problem


@pytest.mark.parametrize("name", list(methods.catalogue))
def test_registered_method_keeps_the_contract(name: str) -> None:
    method = methods.get(name)
    assert check_method(method(**SETTINGS.get(name, {})), ALTERNATIVES.get(name)) is None
    assert method.name == name


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")  # few steps at settings of the toy problem
@pytest.mark.parametrize("name", list(methods.catalogue))
def test_registered_method_forgets_in_a_vision_transformer(name: str) -> None:
    torch.manual_seed(0)
    net = VitTiny(3, channels=1, size=8, patch=4)
    net.encoder.layers = net.encoder.layers[:1]
    x = torch.randn(24, 1, 8, 8)
    y, gone = torch.arange(24) % 3, 1
    optimizer = torch.optim.Adam(net.parameters(), 3e-4)
    for _ in range(8):
        cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    samples = draw((x, y), [gone], shots=4)
    method = methods.get(name)(**SETTINGS.get(name, {}))
    retain = (x[y != gone], y[y != gone]) if "retain" in method.uses else None
    result = method(net, samples, retain=retain, runtime=Runtime(torch.device("cpu")))
    with torch.no_grad():
        before, after = (m(samples.images.x).softmax(1)[:, gone].mean() for m in (net, result.model))
    assert after < before - 0.02
    old = net.state_dict()
    moved = {k for k, v in result.model.state_dict().items() if k in old and not torch.equal(v, old[k])}
    assert any(k.startswith("encoder.layers.0.") for k in moved) == (name not in HEAD_ONLY)


@pytest.mark.parametrize("name", list(methods.catalogue))
def test_registered_method_is_described(name: str) -> None:
    method = methods.get(name)
    assert methods.catalogue.known(name).summary
    reads = ", ".join([*method.uses, *(f"{what} if given" for what in method.may_use)])
    assert all(text.endswith(".") for text in method.departures if text)
    assert "unlike the " not in (method.__doc__ or "").lower(), "departures are data"
    assert methods.catalogue.known(name).reads == (reads or "nothing")
    assert "Source:" in (method.__doc__ or "") + (__import__(method.__module__, fromlist=["_"]).__doc__ or "")
    assert "Attributes:" in (method.__doc__ or "")
    assert all(f"{field}:" in (method.__doc__ or "") for field in method.model_fields)


def test_the_toy_problem_is_always_the_same_and_not_saturated() -> None:
    first, second = toy_problem(), toy_problem()
    assert first.model is not second.model
    other = second.model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in first.model.state_dict().items())
    with torch.no_grad():
        p = first.model(first.x).softmax(1)
    assert (p.argmax(1) == first.y).float().mean() > 0.9
    assert p.max(1).values.mean() < 0.98


class DeadKnob(Mask):
    name: ClassVar[str] = "dead-knob"
    strength: float = Field(default=0.5, ge=0)


class DeadChoice(Mask):
    name: ClassVar[str] = "dead-choice"
    polite: bool = True


class UndeclaredRead(Mask):
    name: ClassVar[str] = "undeclared-read"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        assert len(data.forget.x)
        return super().run(model, data, runtime)


class Sidestep(Mask):
    name: ClassVar[str] = "sidestep"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        assert len(data.samples.x)
        return super().run(model, data, runtime)


class NeverReads(Mask):
    name: ClassVar[str] = "never-reads"
    uses = ("forget", "retain")


class MovedBuffers(Mask):
    name: ClassVar[str] = "moved-buffers"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        for buffer in model.module.buffers():
            buffer.add_(1)
        return super().run(model, data, runtime)


class NumpyDraw(Mask):
    name: ClassVar[str] = "numpy-draw"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        with torch.no_grad():
            next(model.module.parameters()).add_(1e-3 * np.random.rand())
        return super().run(model, data, runtime)


class NotFinite(Mask):
    name: ClassVar[str] = "not-finite"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        with torch.no_grad():
            model.head_layer.weight.fill_(torch.nan)
        return Outcome(model, "done")


class Nothing(Mask):
    name: ClassVar[str] = "nothing"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        return Outcome(cut_classes(model, data.labels, "none"), "done")


class Destroys(Mask):
    name: ClassVar[str] = "destroys"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        head = model.head_layer
        replace_layer(model.module, model.head, nn.Linear(head.in_features, head.out_features).to(head.weight))
        with torch.no_grad():
            model.head_layer.weight.zero_()
        return super().run(model, data, runtime)


class NoDefault(Mask):
    name: ClassVar[str] = "no-default"
    rate: float


class Nameless(Method):
    uses = ()

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        return Outcome(model, "done")


FAULTS = [
    (DeadKnob, "hyperparameter 'strength' does nothing"),
    (DeadChoice, "hyperparameter 'polite' does nothing"),
    (UndeclaredRead, "reads the forget data, which its uses = \\(\\) does not name"),
    (Sidestep, "reads data.samples, which is not for methods"),
    (NeverReads, "uses names 'retain', which it never reads"),
    (MovedBuffers, "it moved 1.running_mean"),
    (NumpyDraw, "used the global generator of numpy"),
    (NumpyDraw, "same seed gave other weights"),
    (NotFinite, "NaN or infinite values in"),
    (Nothing, "It does not forget"),
    (Destroys, "of the retained accuracy on the toy problem"),
    (NoDefault, "cannot be made without arguments.*rate"),
    (Nameless, "It has no name"),
]


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize(("method", "sentence"), FAULTS, ids=[f"{m.__name__}-{i}" for i, (m, _) in enumerate(FAULTS)])
def test_check_method_finds_a_planted_fault(method: type[Method], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_method(method)


def test_check_method_asks_for_values_that_it_cannot_guess() -> None:
    class TextKnob(Mask):
        name: ClassVar[str] = "text-knob"
        layer: str = "head"

    with pytest.raises(AssertionError, match="Pass alternatives=\\{'layer'"):
        check_method(TextKnob)
    with pytest.raises(AssertionError, match=r"'layer' does nothing"):
        check_method(TextKnob, alternatives={"layer": ["body"]})


def test_check_method_takes_an_instance_with_settings() -> None:
    assert check_method(Mask(cut="excise")) is None
    with pytest.raises(AssertionError, match=r"It does not forget"):
        check_method(Mask(cut="none"))
