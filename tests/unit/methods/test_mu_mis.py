from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import support
from support import CPU
from unhot.data.samples import draw
from unhot.errors import MethodFailedError
from unhot.methods.mu_mis import MuMis, sensitivities
from unhot.models.classifier import Classifier
from unhot.models.nets import VitTiny
from unhot.testing import toy_problem

forget = partial(support.forget, MuMis)


def slow_loss(net: nn.Module, x: Tensor, y: Tensor, other: int) -> float:
    """Image by image, logit by logit."""
    total = 0.0
    for image, label in zip(x, y, strict=True):
        for column, sign in ((int(label), 1), (other, -1)):
            one = image[None].clone().requires_grad_()
            net(one)[0, column].backward()
            total += sign * float((one.grad**2).sum())
    return total / len(x)


def test_a_step_is_the_gradient_of_the_slow_loss() -> None:
    toy, lr, h = toy_problem(dtype=torch.float64), 1e-3, 1e-5
    toy.model.eval()
    samples = draw(
        (toy.x, toy.y), (0, 1, 2), shots=2
    )  # one class is retained, so that the other class is no matter of chance
    x, y = samples.images.x, samples.images.y
    scale = sum(float(s.mean()) for s in sensitivities(Classifier.wrap(toy.model, x), x, (y,)))
    after = MuMis(lr=lr, steps=1)(toy.model, samples, runtime=CPU).model.state_dict()
    for name, weight in toy.model.named_parameters():
        flat, moved = weight.data.view(-1), (after[name] - weight.data).view(-1)
        for i in {0, len(flat) // 2, len(flat) - 1}:
            value = flat[i].item()
            ends = []
            for step in (h, -h):
                flat[i] = value + step
                ends.append(slow_loss(toy.model, x, y, other=3))
            flat[i] = value
            slope = (ends[0] - ends[1]) / (2 * h) / scale
            assert moved[i].item() == pytest.approx(-lr * slope, rel=1e-4, abs=1e-11), f"{name} {i}"
    toy.model.zero_grad()


def test_the_other_class_is_drawn_anew_in_every_step() -> None:
    toy, lr = toy_problem(dtype=torch.float64), 1e-3
    net, x, kept = copy.deepcopy(toy.model).eval(), toy.samples().images.x, torch.tensor([0, 2, 3])

    def norms(images: Tensor, columns: Tensor) -> Tensor:
        one = images.clone().requires_grad_()
        chosen = sum(logits[k] for logits, k in zip(net(one), columns.tolist(), strict=True))
        return (torch.autograd.grad(chosen, one, create_graph=True)[0] ** 2).sum((1, 2, 3))

    draws, own = CPU.generator("other class"), torch.ones(8, dtype=torch.int64)
    kept[torch.randint(3, (8,), generator=draws)]  # those by which the run is judged
    scale = norms(x, own).mean().item()
    velocity = [torch.zeros_like(w) for w in net.parameters()]
    for step in range(3):
        images = x[torch.randperm(8, generator=CPU.generator("forget order", step))]
        others = kept[torch.randint(3, (8,), generator=draws)]
        loss = (norms(images, own) - norms(images, others)).mean() / scale
        gradients = torch.autograd.grad(loss, list(net.parameters()), materialize_grads=True)
        with torch.no_grad():
            for w, v, g in zip(net.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                w.sub_(lr * v)
    after = forget(toy, lr=lr, steps=3, recovered=100, stop_at=0).model.state_dict()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(after[name], weight.detach(), msg=name)


def test_the_class_becomes_less_sensitive_than_it_was() -> None:
    toy = toy_problem()
    result = forget(toy, lr=1e-3, steps=10, recovered=100)
    model = Classifier.wrap(toy.model.eval(), toy.x[:2])
    x = toy.samples().images.x
    one = torch.ones(len(x), dtype=torch.int64)
    (before,), (after,) = sensitivities(model, x, (one,)), sensitivities(result.classifier, x, (one,))
    assert result.record.notes["sensitivity_left"] == pytest.approx(float(after.mean() / before.mean()), rel=1e-4)
    assert after.mean() < before.mean()


def test_it_stops_when_the_others_are_as_sensitive_as_asked() -> None:
    toy = toy_problem()
    capped = forget(toy, lr=0.01, steps=4, recovered=100)
    assert (capped.record.stop_reason, capped.record.cost.steps) == ("all steps done", 4)
    reached = capped.record.notes["sensitivity_retained"]
    stopped = forget(toy, lr=0.01, steps=400, recovered=1.5 * reached, stop_at=0)
    assert stopped.record.stop_reason.startswith("sensitivity of the retained classes")
    assert 4 < stopped.record.cost.steps < 400
    assert stopped.record.notes["sensitivity_retained"] >= 1.5 * reached


def test_it_stops_when_the_samples_are_no_longer_taken_for_the_class() -> None:
    toy = toy_problem()
    x = toy.samples().images.x
    stopped = forget(toy, lr=0.001, steps=400, recovered=1e9, stop_at=0.5)
    before = forget(toy, lr=0.001, steps=stopped.record.cost.steps - 1, recovered=1e9, stop_at=0.5)
    assert stopped.record.stop_reason == "probability of the forgotten classes at most 0.5"
    assert before.record.stop_reason == "all steps done"
    left, left_before = (r.classifier.logits(x).softmax(1)[:, 1].mean() for r in (stopped, before))
    assert left <= 0.5 < left_before


def test_a_run_that_diverges_is_refused_with_a_reason() -> None:
    with pytest.raises(MethodFailedError, match=r"noted.*NaN.*infinite"):
        forget(toy_problem(), lr=0.01, steps=400, recovered=1e9, stop_at=0)


def test_without_steps_nothing_changes() -> None:
    toy = toy_problem()
    result = forget(toy, steps=0)
    assert result.record.weights_sha256 == result.record.model_sha256


@pytest.mark.usefixtures("keep_generators")
def test_a_vision_transformer_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    net = VitTiny(3, channels=1, size=8, patch=4)
    x = torch.randn(6, 1, 8, 8)
    y = net(x).argmax(1)
    forgotten = int(y[0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    result = MuMis(steps=1, lr=0.01)(net, draw((x, y), [forgotten], shots=1), runtime=CPU)
    after = result.model.state_dict()
    still = {k for k, v in after.items() if torch.equal(v, before[k])}
    assert {k for k in still if "bias" not in k and k != "head.weight"} == set()
    assert result.record.notes["sensitivity_left"] != 1.0
