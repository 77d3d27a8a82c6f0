from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor

import support
from support import CPU
from unhot.data.augment import distort
from unhot.methods.base import Batch, Data
from unhot.methods.forsaken import Forsaken
from unhot.models.classifier import Classifier
from unhot.testing import FORGOTTEN, Toy, toy_problem

DOUBLE = torch.float64


forget = partial(support.forget, Forsaken)


def given(toy: Toy, *classes: int) -> tuple[Classifier, Data]:
    model, images = Classifier.wrap(toy.model.eval(), toy.x[:2]), toy.samples(*classes).images
    with torch.no_grad():
        batch = Batch(images.x, images.y, model.logits(images.x))
    return model, Data(tuple(model.classes[c] for c in classes), list(classes), ("forget",), batch, None)


def soft(value: float, threshold: float) -> float:
    return max(value - threshold, 0.0) if value > 0 else min(value + threshold, 0.0)


def test_masks_are_found_by_proximal_steps_from_nothing_in_every_round() -> None:
    toy = toy_problem(dtype=DOUBLE)
    net, x = copy.deepcopy(toy.model).eval(), toy.samples().images.x
    weights = list(net.parameters())
    q = [0.02 if k == FORGOTTEN else 0.98 / 3 for k in range(4)]
    for _ in range(2):
        start = [w.detach().clone() for w in weights]
        length = 0.01 * sum(float((w**2).sum()) for w in start) ** 0.5
        penalty = None
        for _ in range(3):
            p = net(x).softmax(1)
            divergence = sum((p[:, k] * (p[:, k] / q[k]).log()).sum() for k in range(4)) / len(x)
            gradients = torch.autograd.grad(divergence, weights)
            if penalty is None:
                penalty = 0.2 * max(float(g.abs().max()) for g in gradients)
            a = length / sum(float((g**2).sum()) for g in gradients) ** 0.5
            with torch.no_grad():
                for w, old, g in zip(weights, start, gradients, strict=True):
                    plain = (w - old - a * g).flatten().tolist()
                    delta = torch.tensor([soft(v, a * penalty) for v in plain], dtype=DOUBLE)
                    w.copy_(old + delta.view_as(w))
    result = forget(toy, rounds=2, inner=3, step_size=0.01, l1=0.2, floor=0.02, stop_at=0.0)
    assert result.record.cost.steps == 6
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name)


def test_almost_the_greatest_penalty_moves_almost_nothing() -> None:
    result = forget(toy_problem(dtype=DOUBLE), rounds=1, inner=1, l1=0.999, stop_at=0.0)
    count = sum(w.numel() for w in result.model.parameters())
    assert result.record.notes["moved"] == pytest.approx(1 / count)


@pytest.mark.parametrize("reference", ["uniform", "distorted"])
@pytest.mark.parametrize("classes", [(1,), (0, 1)])
def test_the_reference_leaves_the_forgotten_classes_the_floor(reference: str, classes: tuple[int, ...]) -> None:
    toy = toy_problem(dtype=DOUBLE)
    model, data = given(toy, *classes)
    q = Forsaken(reference=reference, floor=0.04).unknown(model, data, CPU)
    assert float(q.sum()) == pytest.approx(1)
    assert float(q[list(classes)].sum()) == pytest.approx(0.04)
    kept = [k for k in range(4) if k not in classes]
    if reference == "uniform":
        assert q[kept].tolist() == pytest.approx([0.96 / len(kept)] * len(kept))
        return
    some = torch.randperm(len(data.forget.x), generator=CPU.generator("some"))
    away = distort(data.forget.x[some], CPU.generator("distort"))
    with torch.no_grad():
        mean: Tensor = sum(model.logits(image[None]).softmax(1)[0] for image in away) / len(away)
    assert q[kept].tolist() == pytest.approx((0.96 * mean[kept] / mean[kept].sum()).tolist())


def test_the_reference_holds_nothing_for_what_was_forgotten_before() -> None:
    model, data = given(toy_problem(dtype=DOUBLE), 1)
    q = Forsaken(floor=0.04).unknown(model.mark_forgotten([model.classes[3]]), data, CPU)
    assert q.tolist() == pytest.approx([0.48, 0.02, 0.48, 0.02])


def test_most_weights_keep_their_values_to_the_last_bit() -> None:
    toy = toy_problem()
    result = forget(toy, l1=0.3, step_size=0.01, rounds=40, inner=1, stop_at=0.3)
    assert result.record.stop_reason == "probability of the forgotten classes at most 0.3"
    before = dict(toy.model.named_parameters())
    same = sum(int((before[n] == w).sum()) for n, w in result.model.named_parameters())
    count = sum(w.numel() for w in before.values())
    assert 0.9 * count < same < count
    assert result.record.notes["moved"] == pytest.approx(1 - same / count)
