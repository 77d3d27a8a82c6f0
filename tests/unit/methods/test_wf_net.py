"""WF-Net: the loss of a row of gates, and what learning it does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from support import DEVICE
from unhot.errors import DataError
from unhot.methods.wf_net import WfNet
from unhot.models.classifier import Classifier
from unhot.models.weight_filter import WeightFilter
from unhot.runtime import Runtime
from unhot.testing import FORGOTTEN, Toy, toy_problem

QUICK = WfNet(steps=80, lr=0.1, batch_size=96, forget_weight=0.3, sparsity=0.0)
SHORT = QUICK.model_copy(update={"steps": 8})


@pytest.fixture
def toy() -> Toy:
    return toy_problem()


def runtime() -> Runtime:
    return Runtime(DEVICE, seed=1)


def accuracy(model: Classifier | nn.Module, toy: Toy) -> list[float]:
    """Of each class."""
    module = model.module if isinstance(model, Classifier) else model
    with torch.no_grad():
        right = (module(toy.x).argmax(1) == toy.y).double()
    return [right[toy.y == c].mean().item() for c in range(4)]


def test_the_loss_is_that_of_the_formula() -> None:
    """Against loops over images and gates, with the weights of the layers multiplied by hand."""
    toy = toy_problem(batch_norm=False, dtype=torch.float64)
    method = WfNet(forget_weight=0.7, sparsity=0.3)
    model = Classifier.wrap(toy.model)
    generator = torch.Generator().manual_seed(2)
    row = {n: torch.rand(g.shape[1], generator=generator).double() for n, g in WeightFilter.of(model).gates.items()}
    mine, others = toy.y == 1, toy.y != 1
    got = method.loss(model, row, (toy.x[mine][:5], toy.y[mine][:5]), (toy.x[others][:7], toy.y[others][:7]))

    for name, gates in row.items():
        weight = toy.model.get_parameter(name).data
        for i, gate in enumerate(gates):
            weight[i] *= gate

    def one(x: Tensor, y: Tensor) -> float:
        logits = toy.model(x[None])[0].tolist()
        return math.log(sum(math.exp(z) for z in logits)) - logits[int(y)]

    kept = [one(x, y) for x, y in zip(toy.x[others][:7], toy.y[others][:7], strict=True)]
    lost = [1 / (one(x, y) + 0.01) for x, y in zip(toy.x[mine][:5], toy.y[mine][:5], strict=True)]
    closed = [1 - float(gate) for gates in row.values() for gate in gates]
    expected = sum(kept) / 7 + 0.7 * sum(lost) / 5 + 0.3 * sum(closed) / len(closed)
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_a_sample_that_the_model_is_sure_of_does_not_break_the_loss() -> None:
    """A bug of the plain reciprocal: a loss of zero has none, and its gradient is not a number."""
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[100.0] * 4, [-100.0] * 4]))
    x = torch.ones(3, 1, 2, 2)
    y = torch.zeros(3, dtype=torch.int64)
    row = {"1.weight": torch.ones(2, requires_grad=True)}
    loss = WfNet().loss(Classifier.wrap(net), row, (x, y), (-x, 1 - y))
    loss.backward()
    assert loss.isfinite()
    assert row["1.weight"].grad.isfinite().all()


def test_learning_hides_each_class_and_keeps_the_others(toy: Toy) -> None:
    model = Classifier.wrap(toy.model)
    before = model.sha256()
    flags = [(p.requires_grad, p.grad) for p in toy.model.parameters()]
    gates = QUICK.learn(model, (toy.x, toy.y), runtime())
    assert model.sha256() == before
    assert [(p.requires_grad, p.grad) for p in toy.model.parameters()] == flags
    original = accuracy(model, toy)
    for c in range(4):
        hidden = accuracy(gates.select(c), toy)
        assert hidden[c] < 0.5 < 0.9 < original[c]
        assert all(hidden[k] > original[k] - 0.15 for k in range(4) if k != c)
        assert hidden == accuracy(gates.bake(c), toy)


def test_gates_stay_between_0_and_1_and_those_of_other_classes_stay_one(toy: Toy) -> None:
    kept = toy.y < 3
    model = Classifier.wrap(toy.model).mark_forgotten([Classifier.wrap(toy.model).label(3)])
    gates = SHORT.model_copy(update={"lr": 0.5}).learn(model, (toy.x[kept], toy.y[kept]), runtime()).gates
    assert all((g >= 0).all() and (g <= 1).all() for g in gates.values())
    assert all(torch.equal(g[3], torch.ones_like(g[3])) for g in gates.values())
    assert any((g[0] == 0).any() for g in gates.values())


def test_a_class_without_images_is_refused(toy: Toy) -> None:
    kept = toy.y != 2
    with pytest.raises(DataError, match="no images of 2"):
        SHORT.learn(Classifier.wrap(toy.model), (toy.x[kept], toy.y[kept]), runtime())


def test_the_method_bakes_the_gates_and_leaves_all_else(toy: Toy) -> None:
    result = QUICK(toy.model, toy.samples(), retain=toy.retain(), runtime=runtime())
    before, after = toy.model.state_dict(), result.model.state_dict()
    gated = set(WeightFilter.of(Classifier.wrap(toy.model)).gates)
    for name, value in before.items():
        if name not in gated:
            assert torch.equal(after[name], value)
            continue
        ratio = after[name] / value  # one number a filter, from 0 to 1
        assert torch.allclose(ratio.flatten(1), ratio.flatten(1)[:, :1].expand_as(ratio.flatten(1)), atol=1e-4)
        assert ratio.min() >= 0
        assert ratio.max() <= 1 + 1e-6
    assert 0 < result.record.notes["mean_gate"] < 1
    assert accuracy(result.model, toy)[FORGOTTEN] < 0.5


def test_several_classes_share_a_row(toy: Toy) -> None:
    """The product of the rows of two classes may hide neither: each may send its images to the other."""
    result = QUICK(toy.model, toy.samples(1, 3), retain=toy.retain(1, 3), runtime=runtime())
    original, after = accuracy(toy.model, toy), accuracy(result.model, toy)
    assert max(after[1], after[3]) < 0.3
    assert min(after[0] - original[0], after[2] - original[2]) > -0.15
    assert result.record.cost.steps == QUICK.steps


def test_normalisation_statistics_are_frozen_while_learning(toy: Toy) -> None:
    """A trap: normalising by the statistics of the batch undoes the gates of the convolution before it."""
    model = Classifier.wrap(toy.model.train())
    gates = SHORT.learn(model, (toy.x, toy.y), runtime())
    again = SHORT.learn(Classifier.wrap(toy.model.eval()), (toy.x, toy.y), runtime())
    assert all(torch.equal(g, again.gates[n]) for n, g in gates.gates.items())
    assert any((g < 1).any() for n, g in gates.gates.items() if n == "0.weight")
