"""The attacks in pixel space: over-unlearning and inversion."""

from __future__ import annotations

import math

import pytest
import torch
from handmade import runtime
from scipy.spatial.distance import jensenshannon
from torch import nn

from unhot.data.images import LabelledImages
from unhot.evaluation.attacks.inversion import Inversion
from unhot.evaluation.attacks.over_unlearning import OverUnlearning
from unhot.evaluation.metric import Case, Finding, NotMeasurable
from unhot.evaluation.stats import Estimate
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier

EPSILON = 0.03


@pytest.fixture(scope="module")
def over(digits_views) -> dict[tuple[str, int], Estimate]:
    subjects = (("original", 0), ("masked", 0), ("unlearned", 0), ("retrained", 0), ("retrained", 1))
    return {
        s: OverUnlearning().run(Case(digits_views, s[0], "test", s[1])).estimates["over_unlearning"] for s in subjects
    }


@pytest.fixture(scope="module")
def drawn(digits_views) -> dict[tuple[str, int], Finding]:
    subjects = (("original", 0), ("masked", 0), ("retrained", 0), ("retrained", 1))
    return {s: Inversion().run(Case(digits_views, s[0], "test", s[1])) for s in subjects}


def pixels(views: Views, x: torch.Tensor) -> torch.Tensor:
    spec = views.models["original"][0].input
    return x * spec.std[0] + spec.mean[0]


def test_neighbours_lie_within_epsilon_and_in_the_range_of_pixels(digits_views) -> None:
    x = OverUnlearning().neighbours(Case(digits_views, "original"))
    test = digits_views.splits["test"]
    start = test.x[test.y == 3].float() / 255
    near = pixels(digits_views, x)
    assert near.shape == start.shape
    assert (near - start).abs().max() <= EPSILON + 1e-6
    assert (near - start).abs().max() > 0.9 * EPSILON
    assert near.min() >= -1e-6
    assert near.max() <= 1 + 1e-6


def test_neighbours_by_a_loop_in_pixels(digits_views) -> None:
    case, attack = Case(digits_views, "original"), OverUnlearning(images=3, epsilon=0.05, step=0.012, steps=2)
    test, spec, model = digits_views.splits["test"], case.model.input, case.model
    start = test.x[case.some_forgotten(3)].float() / 255
    noise = torch.rand(start.shape, generator=digits_views.runtime.generator("neighbours"))
    near = (start + (2 * noise - 1) * 0.05).clamp(0, 1)
    for _ in range(2):
        near = near.clone().requires_grad_(True)
        loss = -model.logits((near - spec.mean[0]) / spec.std[0]).log_softmax(1)[:, 3].sum()
        (gradient,) = torch.autograd.grad(loss, near)
        near = (near.detach() + 0.012 * gradient.sign()).clamp(start - 0.05, start + 0.05).clamp(0, 1)
    # a gradient of nearly zero may round to either sign
    assert ((pixels(digits_views, attack.neighbours(case)) - near).abs() < 1e-4).float().mean() > 0.99


def test_neighbours_are_harder_for_the_original_than_noise_of_the_same_size(digits_views) -> None:
    case = Case(digits_views, "original")
    test, model = digits_views.splits["test"], case.model
    start = test.inputs((test.y == 3).nonzero().flatten(), model.input, torch.device("cpu"))
    noise = (2 * torch.rand(start.shape, generator=torch.Generator().manual_seed(0)) - 1) * EPSILON / model.input.std[0]

    def loss(x: torch.Tensor) -> float:
        return -float(digits_views.logits(model, x).log_softmax(1)[:, 3].mean())

    assert loss(OverUnlearning().neighbours(case)) > 1.1 * max(loss(start), loss(start + noise))


def test_over_unlearning_by_scipy(digits_views, over) -> None:
    x = OverUnlearning().neighbours(Case(digits_views, "original"))
    kept = [i for i in range(10) if i != 3]
    p, q = (
        m.module(x).detach().double()[:, kept].softmax(1).numpy()
        for m in (digits_views.models["original"][0], digits_views.models["unlearned"][0])
    )
    assert over["unlearned", 0].value == pytest.approx(float((jensenshannon(p, q, axis=1) ** 2).mean()), abs=1e-5)
    assert over["unlearned", 0].n == len(x)


def test_the_original_is_at_zero_and_so_is_the_masked_one(over) -> None:
    assert over["original", 0].value == pytest.approx(0, abs=1e-7)
    assert over["masked", 0].value == pytest.approx(0, abs=1e-7)


def test_retrained_models_are_far_from_the_original_and_alike_in_that(over) -> None:
    for run in (0, 1):
        e = over["retrained", run]
        assert 0.1 < e.low <= e.value <= e.high <= math.log(2)
    assert abs(over["retrained", 0].value - over["retrained", 1].value) < 0.1
    assert over["unlearned", 0] == over["retrained", 1]


def test_neighbours_are_the_same_for_every_model_and_bounded_in_number(digits_views) -> None:
    few = OverUnlearning(images=7)
    x = few.neighbours(Case(digits_views, "original"))
    assert len(x) == 7
    assert few.neighbours(Case(digits_views, "retrained", "test", 1)) is x


def test_with_two_classes_in_a_sorted_set_both_have_neighbours(zoo) -> None:
    model, test = zoo.original(0), zoo.source.test_images
    order = torch.argsort(test.y, stable=True)
    images = model.align(test.select(order)).cached(model.input)
    views = Views(model, model, [], [model.label(c) for c in (3, 8)], {"test": images}, runtime())
    x = pixels(views, OverUnlearning(images=20).neighbours(Case(views, "original")))
    distances = (x[:, None] - images.x[None].float() / 255).abs().amax((2, 3, 4))
    assert set(images.y[distances.argmin(1)].tolist()) == {3, 8}


def test_on_the_original_inversion_draws_the_class(drawn) -> None:
    e = drawn["original", 0].estimates["inversion_recognised"]
    assert e.value >= 0.75
    assert drawn["masked", 0].estimates["inversion_recognised"] == e


def test_inversion_is_that_of_slow_obvious_code(digits_views) -> None:
    """Three steps of Adam on pixels that begin between 0.4 and 0.6; the last one is so long that some are held back."""
    case, spec = Case(digits_views, "original"), digits_views.models["original"][0].input
    attack = Inversion(images=2, steps=3, lr=0.3, smoothness=2.0)
    train = case.on("train")
    middle = train.features.mean(0)
    wanted = train.features[train.y == 3].mean(0) - middle
    generator = digits_views.runtime.generator("inversion", 3)
    drawing = 0.4 + 0.2 * torch.rand((2, 1, 16, 16), generator=generator)
    mean = square = torch.zeros_like(drawing)
    for t in range(1, 4):
        x = drawing.clone().requires_grad_()
        h = case.model.features((x - spec.mean[0]) / spec.std[0]) - middle
        cosine = (h @ wanted / h.norm(dim=1) / wanted.norm()).mean()
        down, right = (x[:, :, 1:] - x[:, :, :-1]).abs().mean(), (x[..., 1:] - x[..., :-1]).abs().mean()
        (g,) = torch.autograd.grad(-cosine + 2.0 * (down + right), x)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        drawing = (drawing - 0.3 * mean / (1 - 0.9**t) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)).clamp(0, 1)
    found = attack.run(case).pictures["inversion"].float() / 255
    assert ((found - drawing).abs() < 0.005).float().mean() > 0.99  # a gradient of nearly zero may round to either sign
    assert (drawing == 1).any()


@pytest.mark.parametrize("run", [0, 1])
def test_models_that_never_saw_the_class_draw_it_less(drawn, run) -> None:
    e = drawn["retrained", run].estimates["inversion_recognised"]
    assert e.high < drawn["original", 0].estimates["inversion_recognised"].low


def test_drawings_are_pictures(drawn, digits_views) -> None:
    found = drawn["original", 0].pictures["inversion"]
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (8, 1, 16, 16))
    again = Inversion().run(Case(Views(
        *(digits_views.models[s][0] for s in ("original", "unlearned")), [], digits_views.labels,
        digits_views.splits, runtime(),
    ), "original"))  # fmt: skip
    assert torch.equal(again.pictures["inversion"], found)
    assert found.float().std() > 20


def test_two_classes_are_drawn_one_after_the_other(zoo) -> None:
    views = zoo.board(classes=(3, 8))
    finding = Inversion(images=3, steps=40).run(Case(views, "original"))
    assert finding.estimates["inversion_recognised"].n == 6
    assert finding.estimates["inversion_recognised"].value >= 0.5
    assert len(finding.pictures["inversion"]) == 6


@pytest.mark.parametrize("attack", [OverUnlearning(), Inversion()])
def test_models_that_do_not_say_what_pixels_are_cannot_be_attacked(attack) -> None:
    with torch.random.fork_rng(devices=[]):
        model = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.zeros(2, 1, 2, 2))
    y = torch.arange(30) % 3
    images = LabelledImages(torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0)), y, None, "", ())
    views = Views(model, model, [], model.classes[:1], {"test": images}, runtime())
    with pytest.raises(NotMeasurable, match=r"pixels.*become.*inputs"):
        attack.run(Case(views, "unlearned"))
