"""What a change is estimated to cost the other classes, against slow obvious code."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from unhot.methods.parts.damage import LEAST, MOST, SURE, USUAL, Damage, HeldOut, damage, sharpening
from unhot.methods.parts.data import Batch
from unhot.models.classifier import Classifier
from unhot.testing import toy_problem


def by_hand(original: Tensor, changed: Tensor, columns: list[int], temperature: float = 1) -> float:
    """The accuracy lost if the masked original's probabilities are right, and the changed answers, image by image."""
    kept = [k for k in range(original.shape[1]) if k not in columns]
    lost = []
    for before, after in zip(original.tolist(), changed.tolist(), strict=True):
        total = sum(math.exp(before[k] / temperature) for k in kept)
        p = {k: math.exp(before[k] / temperature) / total for k in kept}
        first, second = (max(kept, key=lambda k: z[k]) for z in (before, after))
        lost.append(temperature * (p[first] - p[second]) + (1 - temperature) * (first != second))
    return sum(lost) / len(lost)


@pytest.mark.parametrize("columns", [[0], [1, 4]])
def test_it_is_the_probability_that_the_new_answers_lack(columns: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(40, 6, generator=generator)
    changed = original + 0.5 * torch.randn(40, 6, generator=generator)
    lost = by_hand(original, changed, columns)
    assert lost > 0.01
    assert damage(original, changed, columns, usual=1, most=1, least=0) == pytest.approx((lost, lost))
    assert damage(original, changed, columns) == pytest.approx((USUAL * lost, MOST * lost + LEAST))
    sharper = by_hand(original, changed, columns, 0.5)
    assert damage(original, changed, columns, 0.5) == pytest.approx((USUAL * sharper, MOST * sharper + LEAST))


def test_what_costs_nothing() -> None:
    original = torch.tensor([[9.0, 1.0, 0.0], [9.0, 0.0, 1.0]])
    assert damage(original, original.clone(), [0]) == (0, 0)
    louder = original * torch.tensor([0.0, 2.0, 2.0])  # the same answers, and another probability of the class
    assert damage(original, louder, [0]) == (0, LEAST)
    even = torch.tensor([[9.0, 1.0, 1.0]])  # an answer that was as likely
    assert damage(even, torch.tensor([[0.0, 1.0, 2.0]]), [0]) == (0, LEAST)


def test_no_more_than_everything_is_lost() -> None:
    original = torch.tensor([[0.0, 50.0, -50.0]])
    assert damage(original, torch.tensor([[0.0, -1.0, 1.0]]), [0]) == (USUAL, 1)
    assert damage(original, torch.tensor([[0.0, math.nan, 1.0]]), [0]) == (1, 1)


def test_a_budget_holds_the_upper_end() -> None:
    assert Damage(0.01, 0.03).within(0.03)
    assert not Damage(0.01, 0.03).within(0.029)
    assert Damage(1.0, 1.0).within(1)


def test_stand_ins_remember_the_original() -> None:
    toy = toy_problem()
    model = Classifier.wrap(copy.deepcopy(toy.model), example=toy.x[:2])
    held = HeldOut.of(model, toy.x, [1])
    assert held.damage(model) == (0, 0)
    with torch.no_grad():
        before = model.logits(toy.x)
        model.head_layer.weight.mul_(-1)
        assert held.damage(model) == damage(before, model.logits(toy.x), [1])
    assert not held.damage(model).within(0.035)


class Halves(nn.Module):
    """Two convolutions, and a number of images that is that of the inputs or of what flows."""

    def __init__(self, from_inputs: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.head, self.from_inputs = nn.Linear(16, 3), from_inputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x).relu()).relu()
        return self.head(h.reshape(len(x) if self.from_inputs else len(h), 16))


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("from_inputs", [False, True])
def test_only_the_trained_layers_are_run_again(from_inputs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("unhot.data.images.PIXELS", 20 * 36)
    net, x = Halves(from_inputs).eval(), torch.randn(50, 1, 6, 6)
    model = Classifier.wrap(net, x[:2])
    held, plain = HeldOut.of(model, x, [1], trained=["second"]), HeldOut.of(model, x, [1])
    assert held.damage(model) == (0, 0)
    net.second.weight.data.mul_(-1)
    images: list[int] = []
    with net.first.register_forward_hook(lambda _, args, out: images.append(len(args[0]))):
        found = held.run(model)
    assert torch.equal(found, plain.run(model))
    assert not torch.equal(found, plain.logits)
    assert images == ([20, 20, 10] if from_inputs else [1, 1, 1])


def confidence(logits: Tensor, temperature: float) -> float:
    return float((logits / temperature).softmax(1).amax(1).mean())


def test_a_net_that_is_right_more_often_than_it_is_confident_is_sharpened() -> None:
    y = torch.arange(8) % 4
    logits = torch.eye(4)[y] + 0.01 * torch.arange(4)
    samples = Batch(torch.zeros(8, 1, 2, 2), y, logits)
    assert confidence(logits, 1) < 0.5
    assert confidence(logits, sharpening(samples)) == pytest.approx(9 / 10, abs=1e-3)
    unknown = samples._replace(y=(y + 1) % 4)
    assert confidence(logits, sharpening(unknown)) == pytest.approx(SURE, abs=1e-3)
    less = 0.9 - 2 * (0.9 * 0.1 / 8) ** 0.5
    assert confidence(logits, sharpening(samples, errors=2)) == pytest.approx(less, abs=1e-3)
    assert sharpening(samples._replace(logits=20 * logits)) == 1
    many = Batch(*(torch.cat([part] * 50) for part in samples))
    assert confidence(many.logits, sharpening(many)) == pytest.approx(SURE, abs=1e-3)
