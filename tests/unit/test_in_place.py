"""A net that changes in place what has flowed gives the same numbers and weights as one that does not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from unhot.evaluation.auditor import audit
from unhot.methods import get
from unhot.models.classifier import Classifier
from unhot.models.layers import weight_layers
from unhot.models.replay import replay_points
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics
from unhot.testing import Toy, toy_problem


class Net(nn.Module):
    """The layers of the toy problem; what goes on between them, is done in place or not."""

    def __init__(self, toy: Toy, in_place: bool) -> None:
        super().__init__()
        self.conv, self.norm, _, self.pool, self.second, _, _, self.hidden, _, _, self.head = copy.deepcopy(toy.model)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(1.5).sub_(0.1) if self.in_place else x * 1.5 - 0.1
        h = self.pool(self.norm(self.conv(x)).relu())
        y = self.second(h)
        g = y.relu_().flatten(1) if self.in_place else y.relu().flatten(1)
        g = self.hidden(g).relu()
        logits = self.head(g)
        if self.in_place and not torch.is_grad_enabled():  # where it would be, torch itself refuses it
            x.zero_()
            h.add_(7)
            g.neg_()
        return logits


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


@pytest.fixture
def both(toy: Toy) -> tuple[Classifier, Classifier]:
    plain, in_place = (Classifier.wrap(Net(toy, kind).eval(), toy.x[:2]) for kind in (False, True))
    return plain, in_place


def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


@torch.no_grad()
def test_what_is_recorded_is_what_flowed_in(both: tuple[Classifier, Classifier], toy: Toy) -> None:
    x, found = toy.x[:4].clone(), []
    for model in both:
        with model.recording(["", "conv", "second", "hidden", "head"]) as seen:
            logits = model.logits(x)
        found.append((logits, model.features(x), dict(seen)))
    assert torch.equal(x, toy.x[:4])
    (wanted, features, flows), (logits, others, seen) = found
    assert torch.equal(logits, wanted)
    assert torch.equal(others, features)
    assert flows.keys() == seen.keys()
    assert all(torch.equal(flows[n], seen[n]) for n in flows)


@torch.no_grad()
def test_a_flow_that_replaces_another_is_left_as_it_is(both: tuple[Classifier, Classifier], toy: Toy) -> None:
    plain, in_place = both
    for layer in ("", "second", "head"):
        with plain.recording([layer]) as seen:
            wanted = plain.logits(toy.x[:3])
        flow = seen[layer].clone()
        for _ in range(2):
            with in_place.replacing(layer, flow):
                assert torch.equal(in_place.logits(toy.x[3:6]), wanted)
            assert torch.equal(flow, seen[layer])


def test_split_points_and_guards_are_the_same(both: tuple[Classifier, Classifier], toy: Toy) -> None:
    points = [replay_points(m, weight_layers(m, toy.x[:1]), toy.x[:1]) for m in both]
    assert points[0] == points[1]
    assert set(points[1].values()) != {""}
    guards = [ClassStatistics.collect(m, (toy.x, toy.y), runtime()) for m in both]
    assert guards[0].sha256() == guards[1].sha256()


@pytest.mark.parametrize("name", ["nhle-cwm", "nhle-guard"])
def test_the_same_weights_come_out(name: str, both: tuple[Classifier, Classifier], toy: Toy) -> None:
    found = [get(name)()(m, toy.samples(), runtime=runtime()) for m in both]
    assert found[0].record.cost.steps > 0
    assert found[0].record.weights_sha256 == found[1].record.weights_sha256


def test_the_same_is_measured(both: tuple[Classifier, Classifier], toy: Toy) -> None:
    found = [
        audit(original=m, unlearned=m, classes=[1], test=(toy.x, toy.y), quick=True, runtime=runtime()) for m in both
    ]
    assert [m.value for m in found[0].record.measurements] == [m.value for m in found[1].record.measurements]
