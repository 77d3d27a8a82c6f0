"""Images that stand in for retained classes, beside slow obvious code."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from unhot.data.augment import Augment
from unhot.methods.parts.stand_ins import stand_ins
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.runtime import Runtime
from unhot.testing import toy_problem

SPEC = InputSpec(height=8, width=8, channels=1, mean=(0.4,), std=(0.1,))  # inputs from -4 to 6
RETAINED = [0, 2, 3]


def runtime() -> Runtime:
    return Runtime(torch.device("cpu"))


def by_hand(model: Classifier, x: Tensor, logits: Tensor, count: int, steps: int, low: float, high: float) -> Tensor:
    """Adam on each image alone, towards one class or a mix of two in turn."""
    net, generator = copy.deepcopy(model.module), runtime().generator("stand-ins")
    start = Augment(1)(torch.stack([x[i % len(x)] for i in range(count)]), generator)
    likely = torch.stack([logits[i % len(x), RETAINED].softmax(0) for i in range(count)])
    others = likely.multinomial(1, generator=generator).flatten().tolist()
    shares = torch.rand(count, generator=generator).tolist()
    made = []
    for i in range(count):
        image, mean, square = start[i].clone(), torch.zeros_like(start[i]), torch.zeros_like(start[i])
        share = 1.0 if i % 2 == 0 else 1 - 0.7 * shares[i]
        for t in range(1, steps + 1):
            image.requires_grad_()
            log_p = net(image[None])[0].log_softmax(0)
            loss = -share * log_p[RETAINED[i % 3]] - (1 - share) * log_p[RETAINED[others[i]]]
            (g,) = torch.autograd.grad(loss, image)
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
            move = mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
            image = (image.detach() - 0.02 * (high - low) * move).clamp(low, high)
        made.append(image)
    return torch.stack(made)


@pytest.mark.parametrize("known", [True, False])
def test_stand_ins_are_those_of_slow_obvious_code(known: bool) -> None:
    """Within the range of pixels, or of the samples where the model does not say what pixels are."""
    toy = toy_problem(dtype=torch.float64)
    x = toy.x[toy.y == 1][:4]
    model = dataclasses.replace(Classifier.wrap(toy.model, x[:2]), input=SPEC if known else None)
    low, high = (-4.0, 6.0) if known else (x.min().item(), x.max().item())
    with torch.no_grad():
        logits = model.logits(x)
    wanted, run = by_hand(model, x, logits, 9, 5, low, high), runtime()
    made = stand_ins(model, x, logits, torch.tensor(RETAINED), 9, 5, run)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5)
    assert run.steps == 5
    assert known or (wanted == high).any()  # some pixels were held back
