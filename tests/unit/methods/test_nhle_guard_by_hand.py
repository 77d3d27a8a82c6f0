"""NHLE-Guard beside slow obvious code in double precision: what it draws, its loss, and a short run at its defaults.

What is trained of the toy net is in ``net[4:]``: convolution 4 and linear layer 7, before head 10. Class 1 is
forgotten, classes 0, 2 and 3 are retained.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unhot.data.augment import Augment
from unhot.methods.base import Data, Outcome
from unhot.methods.nhle_guard import NhleGuard, _Draws
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import Toy, toy_problem

RETAINED = [0, 2, 3]
HALF = {"depth": 0.5, "budget": 99.0, "cut": "none"}  # layers 4 and 7; all else is a default


@pytest.fixture(scope="module")
def toy() -> Toy:
    return toy_problem(dtype=torch.float64)


def places(net: nn.Sequential, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What flows into layer 7, into the head, and the logits, for what flows into module 4."""
    stage = net[4:7](flow)
    features = net[7:10](stage)
    return stage, features, net[10](features)


def without(logits: Tensor) -> Tensor:
    """Probabilities with class 1 left out."""
    p = logits.softmax(1)
    p[:, 1] = 0
    return p / p.sum(1, keepdim=True)


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    kept = target[:, RETAINED]
    return (kept * (kept.log() - logits.log_softmax(1)[:, RETAINED])).sum(1).mean()


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] - b[None]).norm(dim=2)


def energy(a: Tensor, b: Tensor) -> Tensor:
    within = [distance(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return 2 * distance(a, b).mean() - within[0] - within[1]


def apart(h: Tensor, drawn: Tensor) -> Tensor:
    """Energy distance in units of what was drawn, and that of the directions."""
    unit = (drawn**2).sum(1).mean().sqrt()
    lengths = h.norm(dim=1, keepdim=True), drawn.norm(dim=1, keepdim=True)
    return energy(h / unit, drawn / unit) + energy(h / lengths[0], drawn / lengths[1])


@dataclass
class ByHand:
    """What a run draws before its first step, and the generator after that."""

    forget: Tensor
    held: Tensor
    replayed: Tensor
    stages: tuple[Tensor, Tensor]
    weights: Tensor
    generator: torch.Generator

    @classmethod
    def of(cls, toy: Toy) -> ByHand:
        x, net, runtime = toy.samples().images.x, toy.model, Runtime(torch.device("cpu"))
        guard, generator = toy.guard().tensors, runtime.generator("draws")
        rows, lowest = guard["4.rows"][RETAINED].double(), guard["4.least"][RETAINED].min()

        def drawn(means: Tensor, classes: Tensor) -> Tensor:
            along = torch.randn(len(classes), rows.shape[1], generator=generator).double()
            moved = [m + torch.tensordot(a, rows[k], 1) for m, a, k in zip(means, along, classes.tolist(), strict=True)]
            return torch.stack(moved).clamp_min(lowest)

        with torch.no_grad():
            classes = torch.randint(3, (2048,), generator=generator)
            replayed = drawn(guard["4.mean"][RETAINED].double()[classes], classes)
            moving = runtime.generator("shift")
            views = torch.cat([net[:4](Augment(1)(x, moving)) for _ in range(8)])
            likely = without(places(net, views)[2] / 0.5)[:, RETAINED]
            which = torch.arange(512) % len(views)
            near = likely[which].multinomial(1, generator=generator).flatten()
            around = drawn(views[which], near)
            stage, features, _ = places(net, replayed)
        share = likely.mean(0) / torch.bincount(classes)
        forget = torch.cat([views, around[128:]])
        return cls(forget, around[:128], replayed, (stage, features), share[classes], generator)

    def loss(self, original: nn.Sequential, net: nn.Sequential) -> Tensor:
        """The loss of one step at the defaults."""
        forget = self.forget[torch.randint(len(self.forget), (64,), generator=self.generator)]
        retained = self.replayed[torch.randint(512, 2048, (128,), generator=self.generator)]
        with torch.no_grad():
            wanted = without(places(original, forget)[2] / 0.5), without(places(original, retained)[2])
        *mine, logits = places(net, forget)
        distances = []
        for h, there in zip(mine, self.stages, strict=True):
            distances.append(apart(h, there[self.weights.multinomial(128, True, generator=self.generator)]))
        replay = divergence(wanted[1], places(net, retained)[2])
        return divergence(wanted[0], logits) + 20 * replay + 3 * sum(distances) / 2

    def held_out(self, original: nn.Sequential, net: nn.Sequential) -> dict[str, float]:
        with torch.no_grad():
            _, features, logits = places(net, self.held)
            retained = self.replayed[:512]
            drawn = self.stages[1][self.weights.multinomial(128, True, generator=self.generator)]
            wanted = without(places(original, retained)[2])
            return {
                "probability_left": logits.softmax(1)[:, 1].mean().item(),
                "energy": apart(features, drawn).item(),
                "divergence": divergence(wanted, places(net, retained)[2]).item(),
            }


def root(toy: Toy, layer: str) -> Tensor:
    """The dense root of (I + rho S / tr S)^-1, rho = 2e4, S of the three retained classes, which are alike in size."""
    guard = toy.guard().tensors
    rows, rest = guard[f"{layer}.input_rows"][RETAINED].double(), guard[f"{layer}.input_rest"][RETAINED].double()
    unit = torch.eye(rows.shape[2]).double()
    s = sum(b.T @ b + a * unit for b, a in zip(rows, rest, strict=True)) / 3
    values, vectors = torch.linalg.eigh(unit + 2e4 * s / s.trace())
    return vectors @ (values**-0.5).diag() @ vectors.T


def drawn_by_the_method(toy: Toy) -> _Draws:
    made: list[_Draws] = []

    class Looking(NhleGuard):
        def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
            made.append(_Draws(self, model, data, data.guard.to(data.forget.x), ["4", "7"], runtime))
            return super().run(model, data, runtime)

    Looking(**HALF | {"steps": 0})(toy.model, toy.samples(), guard=toy.guard(), runtime=Runtime(torch.device("cpu")))
    return made[0]


def test_what_is_drawn_of_the_samples_and_of_the_retained_classes(toy: Toy) -> None:
    """Eight views, and draws around them of which a quarter is held out; draws of the retained classes."""
    got, wanted = drawn_by_the_method(toy), ByHand.of(toy)
    torch.testing.assert_close(got.forget.x, wanted.forget)
    torch.testing.assert_close(got.around.x, wanted.held)
    torch.testing.assert_close(got.retained.x, wanted.replayed)
    torch.testing.assert_close(got.weights[1], wanted.weights)


def test_the_loss_is_the_sum_of_target_replay_and_both_energy_distances(toy: Toy) -> None:
    got, wanted = drawn_by_the_method(toy), ByHand.of(toy)
    for _ in range(3):
        assert got.loss(3.0).item() == pytest.approx(wanted.loss(toy.model, toy.model).item(), rel=1e-6)


def test_a_run_is_judged_by_what_it_is_not_trained_on(toy: Toy) -> None:
    found, wanted = drawn_by_the_method(toy).held_out(), ByHand.of(toy)
    assert found == pytest.approx(wanted.held_out(toy.model, toy.model), rel=1e-6)


def test_a_short_run_at_the_defaults_is_that_of_slow_obvious_code(toy: Toy) -> None:
    """Three steps of Adam on the changes V, at 1, 2/3 and 1/3 of the learning rate of 3e-3."""
    hand, original = ByHand.of(toy), toy.model
    net = copy.deepcopy(original).requires_grad_(False)
    start = {n: original[int(n)].weight.detach() for n in ("4", "7")}
    roots = {n: root(toy, n) for n in start}
    change = {n: torch.zeros_like(w.flatten(1)).requires_grad_() for n, w in start.items()}
    mean, square = ({n: torch.zeros_like(v) for n, v in change.items()} for _ in range(2))

    def changed() -> nn.Sequential:
        moved = copy.deepcopy(net)
        for n, v in change.items():
            layer = moved[int(n)]
            del layer._parameters["weight"]
            layer.weight = start[n] + (v @ roots[n]).view_as(start[n])
        return moved

    hand.held_out(original, changed())
    for step, rate in enumerate((3e-3, 2e-3, 1e-3), 1):
        gradients = torch.autograd.grad(hand.loss(original, changed()), list(change.values()))
        for n, g in zip(change, gradients, strict=True):
            mean[n] = 0.9 * mean[n] + 0.1 * g
            square[n] = 0.999 * square[n] + 0.001 * g**2
            move = mean[n] / (1 - 0.9**step) / ((square[n] / (1 - 0.999**step)).sqrt() + 1e-8)
            change[n] = (change[n] - rate * move).detach().requires_grad_()
    wanted = changed()
    notes = hand.held_out(original, wanted)
    method = NhleGuard(**HALF | {"steps": 3})
    result = method(original, toy.samples(), guard=toy.guard(), runtime=Runtime(torch.device("cpu")))
    for n in start:
        moved = wanted[int(n)].weight - start[n]
        torch.testing.assert_close(
            result.model[int(n)].weight - start[n], moved, rtol=1e-3, atol=1e-3 * moved.abs().max().item()
        )
    assert {n: result.record.notes[n] for n in notes} == pytest.approx(notes, rel=1e-5)
