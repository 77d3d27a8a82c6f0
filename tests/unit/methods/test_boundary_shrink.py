from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from support import CPU
from unhot.methods.base import Batch
from unhot.methods.boundary_shrink import BoundaryShrink
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.testing import FORGOTTEN, Toy, toy_problem


def batch(toy: Toy, spec: InputSpec | None) -> tuple[Classifier, Batch]:
    model = dataclasses.replace(Classifier.wrap(toy.model.eval(), toy.x[:2]), input=spec)
    images = toy.samples().images
    with torch.no_grad():
        return model, Batch(images.x, images.y, model.logits(images.x))


def seen(model: Classifier, forgotten: Batch, epsilon: float) -> Tensor:
    """Return the images that the model is shown last: those across the boundary."""
    shown: list[Tensor] = []
    handle = model.module.register_forward_pre_hook(lambda _, args: shown.append(args[0].detach().clone()))
    BoundaryShrink(epsilon=epsilon).across(model, forgotten)
    handle.remove()
    return shown[-1]


def test_the_step_is_of_pixels_and_leads_to_images_that_exist() -> None:
    """Known bug of the released code: it undoes the normalisation of CIFAR-10 whatever the model's is."""
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.4,), std=(0.2,))  # black is -2, white is 3
    toy = toy_problem(dtype=torch.float64)
    toy = dataclasses.replace(toy, x=toy.x.clamp(-2, 3))
    model, forgotten = batch(toy, spec)
    beside = seen(model, forgotten, 0.1)
    x = forgotten.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model.logits(x), forgotten.y), x)
    expected = [
        min(max(pixel + 0.1 / 0.2 * ((slope > 0) - (slope < 0)), -2.0), 3.0)
        for pixel, slope in zip(forgotten.x.flatten().tolist(), gradient.flatten().tolist(), strict=True)
    ]
    torch.testing.assert_close(beside.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (beside.min(), beside.max()) == (-2, 3)


@pytest.mark.parametrize("classes", [(1,), (0, 3)])
def test_steps_are_towards_the_class_that_the_original_sees_across(classes: tuple[int, ...]) -> None:
    toy, lr = toy_problem(dtype=torch.float64), 0.05
    net, images = copy.deepcopy(toy.model).eval(), toy.samples(*classes).images
    x = images.x.clone().requires_grad_()
    cross_entropy(net(x), images.y).backward()
    low, high = images.x.min(), images.x.max()
    with torch.no_grad():
        across = net((x + 0.2 * (high - low) * x.grad.sign()).clamp(low, high)).tolist()
    labels = [max((k for k in range(4) if k not in classes), key=row.__getitem__) for row in across]
    momentum = [torch.zeros_like(w) for w in net.parameters()]
    for _ in range(3):  # the labels stay as they are while the net changes
        p = net(images.x).softmax(1)
        loss = -torch.stack([p[i, k].log() for i, k in enumerate(labels)]).mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for w, m, g in zip(net.parameters(), momentum, gradients, strict=True):
                m.mul_(0.9).add_(g)
                w.sub_(lr * m)
    result = BoundaryShrink(lr=lr, steps=3, epsilon=0.2)(toy.model, toy.samples(*classes), runtime=CPU)
    for name, expected in net.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], expected, msg=name)


def test_a_sample_that_does_not_cross_is_not_taught_its_own_class() -> None:
    """Known bug of the released code: its label is what the image beside it is taken for, be it the class itself."""
    toy = toy_problem()
    model, forgotten = batch(toy, None)
    near = BoundaryShrink(epsilon=1e-6).across(model, forgotten)
    assert (near.argmax(1) == FORGOTTEN).float().mean() > 0.9
    result = BoundaryShrink(epsilon=1e-6, lr=0.01, steps=60)(toy.model, toy.samples(), runtime=CPU)
    crossed = float((near.argmax(1) != FORGOTTEN).float().mean())
    assert result.record.notes["crossed"] == pytest.approx(crossed)
    with torch.no_grad():
        assert (result.model(toy.samples().images.x).argmax(1) != FORGOTTEN).all()


def test_it_looks_across_in_parts_that_fit() -> None:
    model, (x, y, z) = batch(toy_problem(dtype=torch.float64), None)
    one = BoundaryShrink().across(model, Batch(x, y, z))
    many = Batch(x.repeat(70, 1, 1, 1), y.repeat(70), z.repeat(70, 1))  # more than one forward pass holds
    torch.testing.assert_close(BoundaryShrink().across(model, many), one.repeat(70, 1))
