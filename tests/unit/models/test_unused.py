"""unused_weights: what no output depends on is found, and what any depends on is not."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from unhot.models.classifier import Classifier
from unhot.models.unused import unused_weights


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 2, 3, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A small net; what is set as ``change`` is asked to change its features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(18, 5), nn.BatchNorm1d(5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.changed(self.norm(self.body(x.flatten(1)))))

    def changed(self, h: Tensor) -> Tensor:
        return h


def found_in(net: nn.Module, x: Tensor) -> dict[str, int]:
    return unused_weights(Classifier.wrap(net, head="head"), x)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_all_of_a_plain_net_is_used_with_the_statistics_of_batch_normalisation(x: Tensor) -> None:
    assert found_in(Net(), x) == {}


def test_a_second_head_kept_in_the_weights_is_found(x: Tensor) -> None:
    net = Net()
    net.stash = nn.Linear(5, 4)
    assert found_in(net, x) == {"stash.weight": 20, "stash.bias": 4}


def test_a_second_head_kept_in_a_buffer_is_found(x: Tensor) -> None:
    net = Net()
    net.register_buffer("stash", torch.randn(4, 5))
    assert found_in(net, x) == {"stash": 20}


def test_a_buffer_that_is_used_is_not_found(x: Tensor) -> None:
    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([1.0, 2, 3, 4, 5]))

        def changed(self, h: Tensor) -> Tensor:
            return h * self.scale

    assert found_in(Scaled(), x) == {}


def test_a_frozen_layer_is_used(x: Tensor) -> None:
    net = Net()
    net.body.requires_grad_(False)
    assert found_in(net, x) == {}
    assert not net.body.weight.requires_grad


def test_a_gate_without_a_gradient_is_used(x: Tensor) -> None:
    class Gated(Net):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(5, 3)

        def changed(self, h: Tensor) -> Tensor:
            chosen = self.gate(h).argmax(1)
            assert chosen.isfinite().all()
            return h * (1 + chosen)[:, None]

    assert found_in(Gated(), x) == {}


def test_an_auxiliary_head_that_runs_in_training_only_is_found(x: Tensor) -> None:
    class Helped(Net):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(5, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out + self.aux(self.body(x.flatten(1))) if self.training else out

    assert found_in(Helped().train(), x) == {"aux.weight": 20}


def test_a_layer_whose_result_is_thrown_away_is_found(x: Tensor) -> None:
    class Wasteful(Net):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(5, 2)

        def changed(self, h: Tensor) -> Tensor:
            self.idle(h)
            return h

    assert found_in(Wasteful(), x) == {"idle.weight": 10, "idle.bias": 2}


def test_the_callers_net_is_left_as_it_was(x: Tensor) -> None:
    net = Net()
    net.stash = nn.Linear(5, 4)
    before = copy.deepcopy(net.state_dict())
    assert found_in(net.train(), x)
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
