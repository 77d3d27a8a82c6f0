"""Nets of float16, bfloat16 and float64 forget in float32 at least, keep their type, and are audited as deployed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import unhot
from unhot.evaluation.auditor import audit
from unhot.methods import get
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics
from unhot.testing import Toy, toy_problem

pytestmark = pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")  # of short runs

KINDS = [torch.float16, torch.bfloat16, torch.float64]
OPTIONS: dict[str, dict[str, object]] = {
    "finetune": {"epochs": 1}, "scrub": {"epochs": 1}, "retrain": {"epochs": 1}, "wf-net": {"steps": 3},
    "jit": {"steps": 2}, "mu-mis": {"steps": 2}, "salun": {"epochs": 1}, "nhle-guard": {"steps": 5},
    "nhle-cwm": {}, "ssd": {}, "delete": {}, "pour-p": {},
}  # fmt: skip


def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_method_returns_the_type_that_it_was_given(name: str, kind: torch.dtype, toy: Toy) -> None:
    net = copy.deepcopy(toy.model).to(kind)
    method = get(name)
    reads = {"retain": toy.retain()} if "retain" in method.uses else {}
    found = method(**OPTIONS[name])(net, toy.samples(), runtime=runtime(), **reads)
    assert {t.dtype for t in found.model.state_dict().values() if t.is_floating_point()} == {kind}
    assert found.record.model_sha256 == Classifier.wrap(net).sha256()
    assert found.record.weights_sha256 == found.classifier.sha256()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["nhle-cwm", "nhle-guard"])
def test_it_forgets_as_in_float32(name: str, kind: torch.dtype, toy: Toy) -> None:
    def forgotten(dtype: torch.dtype) -> tuple[nn.Module, int]:
        net = copy.deepcopy(toy.model).to(dtype)
        found = unhot.forget(net, toy.samples(), method=get(name)(cut="none"), runtime=runtime())
        return found.model, found.record.cost.steps

    (wanted, steps), (found, same) = forgotten(torch.float32), forgotten(kind)
    assert steps == same > 0
    with torch.no_grad():
        shares = [
            net(toy.x[toy.y == 1].to(net[0].weight.dtype)).float().softmax(1)[:, 1].mean() for net in (wanted, found)
        ]
        labels = [net(toy.x.to(net[0].weight.dtype)).argmax(1) for net in (wanted, found)]
    assert float((shares[0] - shares[1]).abs()) < 0.03
    assert float((labels[0] == labels[1]).float().mean()) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_is_that_of_float32(kind: torch.dtype, toy: Toy) -> None:
    spec = InputSpec.model_validate({"height": 8, "width": 8, "channels": 1, "mean": [0.5], "std": [0.25]})
    pixels = ((toy.x * 0.25 + 0.5) * 255).clamp(0, 255).to(torch.uint8)

    def measured(dtype: torch.dtype) -> dict[tuple[str, str], float | None]:
        net = copy.deepcopy(toy.model).to(dtype)
        model = Classifier.wrap(net, input=spec)
        found = audit(
            original=model, unlearned=net, classes=[1], test=(pixels, toy.y), train=(pixels, toy.y), runtime=runtime()
        )
        return {(m.name, m.subject): m.value for m in found.record.measurements}

    wanted, found = measured(torch.float32), measured(kind)
    assert {k for k, v in found.items() if v is None} == {k for k, v in wanted.items() if v is None}
    assert found["retain_accuracy", "original"] == pytest.approx(wanted["retain_accuracy", "original"], abs=0.03)
    assert found["over_unlearning", "unlearned"] == pytest.approx(0, abs=1e-5)
    assert found["mia_auc", "original"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guard_is_collected_and_fits(kind: torch.dtype, toy: Toy) -> None:
    model = Classifier.wrap(copy.deepcopy(toy.model).to(kind), toy.x[:2])
    guard = ClassStatistics.collect(model, (toy.x, toy.y), runtime())
    found = unhot.forget(model, toy.samples(), method=get("nhle-guard")(steps=2), guard=guard, runtime=runtime())
    assert found.record.notes["mode"] == "guarded"


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_follow_the_weights(given: torch.dtype, toy: Toy) -> None:
    samples = unhot.draw((toy.x.to(given), toy.y), [1], 8)
    found = unhot.forget(toy.model, samples, runtime=runtime())
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}


def test_every_type_of_weights_is_kept_in_a_mixed_net(toy: Toy) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm, self.head = toy.model[:8].bfloat16(), nn.LayerNorm(12), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.body(x).to(self.norm.weight.dtype)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Mixed()
    with torch.no_grad():
        y = net(toy.x.bfloat16()).argmax(1)
    samples = unhot.draw((toy.x, y), [int(y.mode().values)], 4)
    found = unhot.forget(net, samples, runtime=runtime())
    assert {n: t.dtype for n, t in found.model.state_dict().items()} == {
        n: t.dtype for n, t in net.state_dict().items()
    } | {"head.bias": torch.float32}
