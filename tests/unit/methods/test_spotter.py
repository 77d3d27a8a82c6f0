from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import support
from support import CPU
from unhot.methods.base import Batch
from unhot.methods.spotter import Spotter, dispersion
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.testing import Toy, toy_problem

DOUBLE = torch.float64


forget = partial(support.forget, Spotter)


def batch(toy: Toy, *classes: int, spec: InputSpec | None = None) -> tuple[Classifier, Batch]:
    model = dataclasses.replace(Classifier.wrap(toy.model.eval(), toy.x[:2]), input=spec)
    images = toy.samples(*classes).images
    with torch.no_grad():
        return model, Batch(images.x, images.y, model.logits(images.x))


def test_dispersion_is_the_mean_cosine_of_pairs_of_a_class() -> None:
    h = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    y = torch.tensor([0, 2, 0, 2, 0, 1])
    found = [
        float(h[i] @ h[j] / h[i].norm() / h[j].norm()) for i in range(6) for j in range(6) if i != j and y[i] == y[j]
    ]
    assert len(found) == 8
    assert float(dispersion(h, y)) == pytest.approx(sum(found) / 8)
    assert float(dispersion(h[:1], y[:1])) == 0
    assert float(dispersion(h[4:], y[4:])) == 0


def slow_kl(teacher: Tensor, student: Tensor, gone: list[int]) -> Tensor:
    """KL(p~ || p), image by image and class by class; nats, a mean over images and a sum over classes."""
    total = torch.zeros((), dtype=DOUBLE)
    for t, s in zip(teacher.softmax(1), student.softmax(1), strict=True):
        kept = [k for k in range(len(t)) if k not in gone]
        mass = sum(t[k] for k in kept)
        total = total + sum(t[k] / mass * torch.log(t[k] / mass / s[k]) for k in kept)
    return total / len(teacher)


@pytest.mark.parametrize("classes", [(1,), (1, 3)])
def test_a_step_is_the_gradient_of_the_papers_loss(classes: tuple[int, ...]) -> None:
    toy, lr = toy_problem(dtype=DOUBLE), 1e-2
    method = Spotter(lr=lr, steps=1, weight=0.6, scatter=0.8)
    model, (x, y, z) = batch(toy, *classes)
    beside = method.neighbours(model, Batch(x, y, z), dataclasses.replace(CPU, seed=0))
    h = model.features(x)
    loss = 0.6 * slow_kl(z, model.logits(x), list(classes))
    loss = loss + 0.4 * slow_kl(beside.logits, model.logits(beside.x), list(classes))
    loss = loss + 0.8 * dispersion(h, y)
    weights = dict(toy.model.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()))
    after = forget(toy, *classes, **method.model_dump()).model.state_dict()
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        expected = weight.detach() - lr * (gradient + 5e-4 * weight.detach())
        torch.testing.assert_close(after[name], expected, msg=name)


def test_the_teacher_is_the_original_at_the_image_beside() -> None:
    model, forgotten = batch(toy_problem(dtype=DOUBLE))
    beside = Spotter().neighbours(model, forgotten, CPU)
    with torch.no_grad():
        torch.testing.assert_close(beside.logits, model.logits(beside.x))
    assert not torch.allclose(beside.logits, forgotten.logits)


def test_neighbours_are_found_by_ascent_on_the_class() -> None:
    model, forgotten = batch(toy_problem(dtype=DOUBLE))
    beside = Spotter(epsilon=0.05, ascent=5).neighbours(model, forgotten, CPU)
    before = cross_entropy(forgotten.logits, forgotten.y, reduction="none")
    after = cross_entropy(beside.logits, forgotten.y, reduction="none")
    assert (after > before).all()


def test_neighbours_are_those_of_slow_obvious_code() -> None:
    """From a random place within epsilon, two steps of a third of it each; epsilon 0.2 is 0.8 of the inputs here."""
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))  # black is -2, white is 2
    toy = toy_problem(dtype=DOUBLE)
    model, forgotten = batch(dataclasses.replace(toy, x=toy.x.clamp(-2, 2)), spec=spec)
    noise = torch.rand(forgotten.x.shape, generator=CPU.generator("neighbours")).to(DOUBLE)
    wanted = []
    for image, label, start in zip(forgotten.x, forgotten.y, noise, strict=True):
        near = (image + (2 * start - 1) * 0.8).clamp(-2, 2)
        for _ in range(2):
            near.requires_grad_()
            loss = -model.logits(near[None])[0].log_softmax(0)[label]
            (gradient,) = torch.autograd.grad(loss, near)
            moved = near.detach() + 0.8 / 3 * gradient.sign()
            near = moved.clamp(image - 0.8, image + 0.8).clamp(-2, 2)
        wanted.append(near)
    torch.testing.assert_close(Spotter(epsilon=0.2, ascent=2).neighbours(model, forgotten, CPU).x, torch.stack(wanted))


def test_neighbours_are_images_that_exist_and_near_in_pixels() -> None:
    """Known bug of the released code: normalised images clamped to 0..1, and epsilon of normalised values."""
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.4,), std=(0.2,))  # black is -2, white is 3
    toy = toy_problem(dtype=DOUBLE)
    toy = dataclasses.replace(toy, x=toy.x.clamp(-2, 3))
    model, forgotten = batch(toy, spec=spec)
    beside = Spotter(epsilon=0.1, ascent=9).neighbours(model, forgotten, CPU)
    assert beside.x.min() == -2
    assert beside.x.max() == 3
    moved = (beside.x - forgotten.x).abs().max()
    assert float(moved) == pytest.approx(0.1 / 0.2)


def test_without_a_known_input_the_samples_say_what_pixels_may_be() -> None:
    model, forgotten = batch(toy_problem(dtype=DOUBLE))
    beside = Spotter(epsilon=0.1, ascent=9).neighbours(model, forgotten, CPU)
    low, high = forgotten.x.min(), forgotten.x.max()
    assert beside.x.min() >= low
    assert beside.x.max() <= high
    assert float((beside.x - forgotten.x).abs().max()) == pytest.approx(float(0.1 * (high - low)))


def test_the_steps_are_as_many_as_asked_in_batches_of_any_size() -> None:
    toy = toy_problem()
    results = {size: forget(toy, steps=5, batch_size=size, lr=1e-2) for size in (3, 8)}
    assert [r.record.cost.steps for r in results.values()] == [5, 5]
    assert results[3].record.weights_sha256 != results[8].record.weights_sha256
    assert forget(toy, steps=0).record.weights_sha256 == results[3].record.model_sha256


def test_a_sample_and_its_neighbour_are_in_the_same_step() -> None:
    toy, passed = toy_problem(), list[Tensor]()
    x = toy.samples().images.x
    hook = lambda _, args: passed.append(args[0]) if torch.is_grad_enabled() and len(args[0]) == 4 else None  # noqa: E731
    toy.model[0].register_forward_pre_hook(hook)
    forget(toy, steps=4, batch_size=4, epsilon=0.03)
    assert len(passed) == 8
    for samples, neighbours in zip(passed[::2], passed[1::2], strict=True):
        assert (samples - neighbours).abs().max() <= 0.03 * (x.max() - x.min()) + 1e-6
    assert not torch.equal(passed[0], passed[2])


def test_the_features_are_scattered() -> None:
    toy = toy_problem()
    y = toy.samples().images.y
    cosine = {}
    for scatter in (0.0, 3.0):
        result = forget(toy, lr=0.01, steps=40, scatter=scatter)
        with torch.no_grad():
            cosine[scatter] = float(dispersion(result.classifier.features(toy.samples().images.x), y))
    assert cosine[3.0] < cosine[0.0] - 0.1
