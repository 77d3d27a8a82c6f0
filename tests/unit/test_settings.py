"""What the caller has set around a call changes no number, and is there again after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import pytest
import torch

import unhot
from unhot.data.samples import ImageSource
from unhot.evaluation.auditor import audit
from unhot.methods import get
from unhot.methods.base import ForgetResult, Method
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics
from unhot.testing import Toy, toy_problem

pytestmark = pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")  # of short runs


@contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


METHODS: dict[str, Method] = {
    "nhle-cwm": get("nhle-cwm")(),
    "nhle-guard": get("nhle-guard")(steps=2),
    "finetune": get("finetune")(epochs=1),
}
SET: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "anomaly detection": torch.autograd.detect_anomaly,
}


def settings() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"), torch.get_default_device(), torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def forgotten(toy: Toy, method: str, retain: ImageSource | None = None) -> ForgetResult:
    return METHODS[method](toy.model, toy.samples(), runtime=runtime(), retain=retain)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_weights_come_out(name: str, method: str, toy: Toy) -> None:
    retain = toy.retain() if method == "finetune" else None
    wanted = forgotten(toy, method, retain).record
    with SET[name]():
        before = settings()
        found = forgotten(toy, method, retain)
        assert settings() == before
    assert settings()[:3] == (torch.float32, False, True)
    assert found.record.weights_sha256 == wanted.weights_sha256
    assert found.record.digest == wanted.digest
    assert found.model(toy.x).grad_fn is not None


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", SET)
def test_the_same_is_measured_and_collected(name: str, toy: Toy) -> None:
    def measured() -> tuple[object, ...]:
        test = toy.x, toy.y
        found = audit(original=toy.model, unlearned=toy.model, classes=[1], test=test, quick=True, runtime=runtime())
        guard = ClassStatistics.collect(Classifier.wrap(toy.model, toy.x[:2]), test, runtime())
        return [m.value for m in found.record.measurements], guard.sha256()

    wanted = measured()
    with SET[name]():
        before = settings()
        assert measured() == wanted
        assert settings() == before


def test_an_error_leaves_the_settings_as_they_were(toy: Toy) -> None:
    with ExitStack() as stack:
        stack.enter_context(default_dtype(torch.float64))
        stack.enter_context(torch.inference_mode())
        before = settings()
        with pytest.raises(unhot.UnhotError):
            unhot.forget(toy.model, unhot.draw((toy.x.expand(-1, 3, -1, -1), toy.y), [1], 4))
        assert settings() == before


def test_a_net_and_images_made_in_inference_mode(toy: Toy) -> None:
    wanted = forgotten(toy, "nhle-cwm").record.weights_sha256
    with torch.inference_mode():
        made = Toy(copy.deepcopy(toy.model), toy.x.clone(), toy.y.clone())
    assert all(p.is_inference() for p in made.model.parameters())
    for around in (torch.inference_mode, nullcontext):
        with around():
            assert forgotten(made, "nhle-cwm").record.weights_sha256 == wanted
