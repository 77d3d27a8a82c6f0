from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from support import CPU, forget
from unhot.data.samples import draw
from unhot.methods.ssd import Lfssd, Ssd
from unhot.models.classifier import Classifier
from unhot.models.nets import VitTiny
from unhot.testing import toy_problem

DOUBLE = torch.float64


def slow_importance(method: type[Ssd], net: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    total = [torch.zeros_like(p) for p in net.parameters()]
    for image, label in zip(x, y, strict=True):
        net.zero_grad()
        logits = net(image[None])
        (cross_entropy(logits, label[None]) if method is Ssd else logits.norm() ** 2).backward()
        for sum_so_far, p in zip(total, net.parameters(), strict=True):
            if p.grad is not None:
                sum_so_far += p.grad**2 if method is Ssd else p.grad.abs()
    net.zero_grad()
    return [t / len(x) for t in total]


def slow_dampened(weight: float, mine: float, others: float, alpha: float, strength: float) -> float:
    if mine > alpha * others:
        return weight * min(strength * others / mine, 1)
    return weight


@pytest.mark.parametrize("method", [Ssd, Lfssd])
@pytest.mark.parametrize(("classes", "alpha", "strength"), [((1,), 2.0, 1.0), ((0, 3), 1.5, 0.4), ((1,), 0.5, 3.0)])
def test_weights_are_those_of_the_papers_rule(
    method: type[Ssd], classes: tuple[int, ...], alpha: float, strength: float
) -> None:
    toy = toy_problem(dtype=DOUBLE)
    net = toy.model.eval()
    mine = slow_importance(method, net, toy.samples(*classes).images.x, toy.samples(*classes).images.y)
    others = slow_importance(method, net, *toy.retain(*classes))
    result = forget(method, toy, *classes, alpha=alpha, strength=strength)
    changed = 0
    for old, new, i_f, i_d in zip(net.parameters(), result.model.parameters(), mine, others, strict=True):
        expected = [
            slow_dampened(w, a, b, alpha, strength)
            for w, a, b in zip(*(t.detach().flatten().tolist() for t in (old, i_f, i_d)), strict=True)
        ]
        torch.testing.assert_close(new.detach().flatten(), torch.tensor(expected, dtype=DOUBLE))
        changed += int((i_f > alpha * i_d).sum())
    assert result.record.notes["dampened"] == pytest.approx(changed / sum(p.numel() for p in net.parameters()))
    assert changed > 0


@pytest.mark.usefixtures("keep_generators")
def test_gradients_are_squared_before_the_mean() -> None:
    """Known bug of the released code: the mean gradient of a batch is squared; here it is zero."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net[1].weight.zero_()
    model = Classifier.wrap(net)
    x, y = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1), torch.tensor([0, 0])
    (found,) = Ssd().importance(model, [(x, y)])
    torch.testing.assert_close(found, torch.full((2, 1), 0.25))
    (found,) = Lfssd().importance(model, [(x, y)])
    assert torch.equal(found, torch.zeros(2, 1))


@pytest.mark.parametrize("method", [Ssd, Lfssd])
def test_importance_is_the_same_however_the_images_are_batched(method: type[Ssd]) -> None:
    toy = toy_problem()
    model, (x, y) = Classifier.wrap(toy.model.eval(), toy.x[:2]), toy.retain()
    whole = method().importance(model, [(x, y)])
    parts = method().importance(model, zip(x.split(7), y.split(7), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_some_retained_images_are_drawn_at_random() -> None:
    """A set that is sorted by class begins with images of one class."""
    toy = toy_problem()
    (x, y), passed = toy.retain(), list[Tensor]()
    x, y = x[y.argsort(stable=True)], y.sort().values
    toy.model[0].register_forward_pre_hook(lambda _, args: passed.append(args[0]) if torch.is_grad_enabled() else None)

    def evaluated(seed: int) -> set[int]:
        passed.clear()
        Ssd(images=12)(toy.model, toy.samples(), retain=(x, y), seed=seed, runtime=CPU)
        return {i for i, image in enumerate(x) if any(torch.equal(image, p[0]) for p in passed)}

    assert len(evaluated(0)) == 12
    assert set(y[list(evaluated(0))].tolist()) == {0, 2, 3}
    assert evaluated(0) == evaluated(0) != evaluated(1)


@pytest.mark.usefixtures("keep_generators")
def test_a_weight_that_matters_to_nobody_is_left() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.arange(12.0).view(3, 4))
    x = torch.eye(4)[[0, 1, 2]].view(3, 1, 2, 2)  # the last pixel is always 0
    samples = draw((x, net(x).argmax(1)), [2], shots=1)
    result = Ssd(alpha=1)(net, samples, retain=(x, torch.tensor([0, 1, 0])), runtime=CPU)
    assert torch.equal(result.model[1].weight[:, 3], net[1].weight[:, 3])


def test_labels_do_not_matter_without_a_loss() -> None:
    toy = toy_problem()
    x, y = (part[::4] for part in toy.retain())
    swapped = torch.where(y == 0, 2, torch.where(y == 2, 0, y))
    runs = [Lfssd(alpha=2)(toy.model, toy.samples(), retain=(x, labels), runtime=CPU) for labels in (y, swapped)]
    assert runs[0].record.weights_sha256 == runs[1].record.weights_sha256
    runs = [Ssd(alpha=2)(toy.model, toy.samples(), retain=(x, labels), runtime=CPU) for labels in (y, swapped)]
    assert runs[0].record.weights_sha256 != runs[1].record.weights_sha256


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.parametrize("method", [Ssd, Lfssd])
def test_a_vision_transformer_is_dampened(method: type[Ssd]) -> None:
    torch.manual_seed(0)
    net = VitTiny(3, channels=1, size=8, patch=4)
    net.encoder.layers = net.encoder.layers[:1]
    x = torch.randn(6, 1, 8, 8)
    y = net(x).argmax(1)
    gone = int(y[0])
    result = method(alpha=1)(net, draw((x, y), [gone], shots=1), retain=(x, (y + 1) % 3), runtime=CPU)
    before = net.state_dict()
    changed = {k for k, v in result.model.state_dict().items() if not torch.equal(v, before[k])}
    assert {"encoder.layers.0.self_attn.in_proj_weight", "embed.weight", "head.weight"} <= changed
