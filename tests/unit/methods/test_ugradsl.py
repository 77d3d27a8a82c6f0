from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support import CPU, forget
from unhot.methods.ugradsl import Ugradsl, UgradslPlus, near, smoothed_cross_entropy
from unhot.models.classifier import Classifier
from unhot.testing import toy_problem

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("method", [Ugradsl, UgradslPlus])


def slow_label(y: int, alpha: float, count: int) -> Tensor:
    label = torch.full((count,), alpha / count, dtype=DOUBLE)
    label[y] += 1 - alpha
    return label


def slow_smoothed(logits: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
    total = torch.zeros((), dtype=DOUBLE)
    for z, label, rate in zip(logits, y.tolist(), alpha.tolist(), strict=True):
        total = total - (slow_label(label, rate, len(z)) * z.log_softmax(0)).sum()
    return total / len(y)


def slow_near(forget: Tensor, retain: Tensor, beta: float) -> Tensor:
    counts = [
        sum(bool((1 - f @ r / f.norm() / r.norm()) / 2 <= beta) for r in retain.detach()) for f in forget.detach()
    ]
    return torch.tensor(counts, dtype=DOUBLE) / len(retain)


def test_smoothed_cross_entropy_is_that_of_the_smoothed_label() -> None:
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(5, 4, generator=generator, dtype=DOUBLE)
    y, alpha = torch.tensor([0, 3, 1, 1, 2]), torch.tensor([0.0, -0.5, -2.0, 0.3, 1.0], dtype=DOUBLE)
    torch.testing.assert_close(smoothed_cross_entropy(z, y, alpha), slow_smoothed(z, y, alpha))


def test_smoothing_moves_a_net_that_is_sure_where_plain_ascent_does_not() -> None:
    z = torch.tensor([[40.0, 0.0, 0.0, 0.0]], dtype=DOUBLE).requires_grad_()
    y, gradients = torch.tensor([0]), {}
    for alpha in (0.0, -0.4):
        ascent = -smoothed_cross_entropy(z, y, torch.tensor([alpha], dtype=DOUBLE))
        (gradients[alpha],) = torch.autograd.grad(ascent, z)
    torch.testing.assert_close(gradients[0.0], torch.zeros_like(z))
    torch.testing.assert_close(gradients[-0.4], torch.tensor([[0.3, -0.1, -0.1, -0.1]], dtype=DOUBLE))


def test_near_is_the_share_of_retained_features_within_reach() -> None:
    generator = torch.Generator().manual_seed(4)
    forget, retain = (torch.randn(n, 6, generator=generator, dtype=DOUBLE) for n in (3, 20))
    for beta in (0.0, 0.3, 0.5, 1.0):
        torch.testing.assert_close(near(forget, retain, beta), slow_near(forget, retain, beta))
    same, opposite, across = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]).split(1)
    retain = torch.cat([same, opposite, across])
    assert [float(near(same, retain, beta)) for beta in (0.1, 0.5, 1.0)] == pytest.approx([1 / 3, 2 / 3, 1])


@BOTH
@pytest.mark.parametrize("classes", [(1,), (0, 3)])
@pytest.mark.parametrize(("alpha", "ceiling"), [(-0.3, 1e9), (None, 1e9), (-0.3, 1e-9)])  # without ascent no alpha
def test_a_step_is_the_gradient_of_the_papers_loss(
    method: type[Ugradsl | UgradslPlus], classes: tuple[int, ...], alpha: float | None, ceiling: float
) -> None:
    toy, lr, p, beta = toy_problem(dtype=DOUBLE), 0.02, 0.7, 0.25
    toy.model[9].p = 0.0  # dropout, which would draw
    shared = {"p": p, "alpha": alpha, "beta": beta, "lr": lr, "clip": 1e9, "ceiling": ceiling}
    once = {"epochs": 1} if method is UgradslPlus else {"steps": 1}
    result = forget(method, toy, *classes, **shared, **once, batch_size=1000, sample_batch=1000)
    (x, y), mine, net = toy.retain(*classes), toy.samples(*classes).images, toy.model.train()
    h, z = Classifier.wrap(net).features_and_logits(torch.cat([x, mine.x]))
    n = len(x)
    rate = -slow_near(h[n:], h[:n], beta) if alpha is None else torch.full((len(mine.y),), alpha, dtype=DOUBLE)
    assert 0 < -rate.min() <= 1
    loss = p * -z[:n].softmax(1)[torch.arange(n), y].log().mean()
    if ceiling > 1:
        loss = loss - (1 - p) * slow_smoothed(z[n:], mine.y, rate)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    after = result.model.state_dict()
    for (name, weight), gradient in zip(net.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(after[name], (weight - lr * gradient).detach(), msg=name)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(after[name], buffer, msg=name)
    with torch.no_grad():
        left = result.model(mine.x).softmax(1)[:, list(classes)].sum(1).mean()
    assert result.record.notes["probability_left"] == pytest.approx(float(left))


def test_it_stops_when_the_class_is_forgotten_or_at_the_step_cap() -> None:
    toy = toy_problem()
    settings = {"lr": 0.02, "batch_size": 24, "sample_batch": 4}
    stopped = forget(Ugradsl, toy, **settings, steps=200, stop_at=0.05)
    assert stopped.record.stop_reason == "probability of the forgotten classes at most 0.05"
    assert stopped.record.notes["probability_left"] <= 0.05
    steps = stopped.record.cost.steps
    assert 2 <= steps < 200
    assert steps % 2 == 0  # whole passes over 8 samples in batches of 4
    before = forget(Ugradsl, toy, **settings, steps=steps - 2, stop_at=0.05)
    assert before.record.stop_reason == "all steps done"
    assert before.record.notes["probability_left"] > 0.05
    assert forget(Ugradsl, toy, **settings, steps=3, stop_at=0).record.cost.steps == 3
    untouched = forget(Ugradsl, toy, steps=9, stop_at=1)
    assert untouched.record.weights_sha256 == untouched.record.model_sha256


def test_the_net_survives_a_long_ascent() -> None:
    """Known failure of implementations: the loss on the samples goes to infinity, and the net with it."""
    toy = toy_problem()
    settings = {"epochs": 20, "p": 0.6, "lr": 0.05, "batch_size": 24}
    accuracy, loss = {}, {}
    for ceiling in (8.0, 1e9):
        result, (x, y), mine = forget(UgradslPlus, toy, **settings, ceiling=ceiling), toy.retain(), toy.samples().images
        with torch.no_grad():
            accuracy[ceiling] = float((result.model(x).argmax(1) == y).float().mean())
            p = result.model(mine.x).log_softmax(1)
            loss[ceiling] = -float(p[torch.arange(len(mine.y)), mine.y].mean())
    assert accuracy[8.0] > 0.9
    assert loss[8.0] < 100 < loss[1e9]


@BOTH
def test_samples_are_never_more_than_the_retained_images(method: type[Ugradsl | UgradslPlus]) -> None:
    toy, passed = toy_problem(), []
    toy.model[0].register_forward_pre_hook(lambda m, args: passed.append(len(args[0])) if m.training else None)
    x, y = toy.retain()
    once = {"epochs": 1} if method is UgradslPlus else {"steps": 3, "stop_at": 0.0}
    settings = once | {"batch_size": 16, "sample_batch": 8}
    method.of(settings)(toy.model, toy.samples(), retain=(x[:35], y[:35]), runtime=CPU)
    assert passed[-3:] == [16 + 8, 16 + 8, 3 + 3]
