"""TARF: its schedule, one step of each phase, what it identifies, and the four settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from support import DEVICE
from unhot.data.concept import Concept, LabelMap
from unhot.data.images import LabelledImages
from unhot.data.samples import draw
from unhot.errors import DataError, DataWarning
from unhot.methods.base import ForgetResult
from unhot.methods.mask import Mask
from unhot.methods.tarf import Tarf
from unhot.models.classifier import Classifier
from unhot.runtime import Runtime
from unhot.testing import toy_problem

FINE = ("a0", "a1", "b0", "b1", "c0", "c1")
MAP = LabelMap({"a": ("a0", "a1"), "b": ("b0", "b1"), "c": ("c0", "c1")})


def test_the_ascent_fades_to_nothing() -> None:
    method = Tarf(steps=10, k=0.5, t0=4, t1=1)
    expected = [0.5 * max(10 - t - 4, 0) / 10 for t in range(10)]
    assert [method.weight(t) for t in range(10)] == pytest.approx(expected)
    assert [t for t in range(10) if method.weight(t) == 0] == [6, 7, 8, 9]


def test_one_step_of_each_phase() -> None:
    """Against plain gradients of the whole sets: ascent alone, both, and descent alone."""
    toy = toy_problem(batch_norm=False, dtype=torch.float64)
    samples = toy.samples()
    x, y = (part[:12] for part in toy.retain())
    method = Tarf(steps=3, k=0.4, t0=1, t1=1, lr=0.05, momentum=0.5, batch_size=1000, clip=1e9, ceiling=1e9)
    result = method(toy.model, samples, retain=(x, y), runtime=Runtime(DEVICE))

    net, speed = toy.model, [torch.zeros_like(p) for p in toy.model.parameters()]
    for ascent, descent in ((0.4 * 2 / 3, 0), (0.4 * 1 / 3, 1), (0, 1)):
        forgotten = sum(-net(one[None])[0].log_softmax(0)[1] for one in samples.images.x) / len(samples)
        retained = sum(-net(one[None])[0].log_softmax(0)[c] for one, c in zip(x, y, strict=True)) / len(y)
        gradients = torch.autograd.grad(descent * retained - ascent * forgotten, list(net.parameters()))
        with torch.no_grad():
            for p, v, g in zip(net.parameters(), speed, gradients, strict=True):
                v.mul_(0.5).add_(g)
                p.sub_(0.05 * v)
    for ours, slow in zip(result.model.parameters(), net.parameters(), strict=True):
        assert torch.allclose(ours, slow, rtol=1e-9, atol=1e-12)


def test_gravity_is_the_change_of_the_loss() -> None:
    toy = toy_problem()
    x, y = toy.retain()
    settings = {"steps": 4, "t0": 0, "t1": 4, "k": 3.0, "lr": 0.02}  # phase I alone
    result = Tarf(**settings)(toy.model, toy.samples(), retain=(x, y), runtime=Runtime(DEVICE))
    with torch.no_grad():
        before, after = (cross_entropy(net(x), y, reduction="none") for net in (toy.model, result.model))
    for c in (0, 2, 3):
        expected = (after - before).abs()[y == c].mean().item()
        assert result.record.notes["gravity"][str(c)] == pytest.approx(expected, rel=1e-4)
        assert expected > 0


def test_what_moves_most_is_left_out() -> None:
    gravity = torch.tensor([0.1, 0.2, 5.0, 6.0, 0.3, 0.4, 9.0, 9.0])
    y = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    hidden, kept = Tarf(hidden_classes=1).affected(gravity, y, own=[3])
    assert hidden == [1]  # class 3 moves more, and is that of the samples
    assert kept.tolist() == [True, True, False, False, True, True, True, True]
    assert Tarf(hidden_classes=2).affected(gravity, y, own=[3])[0] == [1, 2]
    nothing, kept = Tarf(hidden_share=0.25).affected(gravity, y, own=[3])
    assert nothing == []
    assert kept.tolist() == [True] * 6 + [False, False]
    assert Tarf().affected(gravity, y, own=[3])[1].all()
    with pytest.raises(DataError, match=r"hidden_classes.*3.*3.*be left"):
        Tarf(hidden_classes=3).affected(gravity, y, own=[3])


@dataclass(frozen=True)
class World:
    """Images of three groups of two labels each, and models of the labels and of the groups."""

    images: LabelledImages
    fine: Classifier
    coarse: Classifier

    def accuracy(self, model: Classifier, label: str) -> float:
        """Of the images of one label, as the model sees it."""
        mine = self.images.y == FINE.index(label)
        seen = MAP.concept([label], [c.name for c in model.classes]).class_of[label]
        with torch.no_grad():
            found = model.logits(self.images.x[mine]).argmax(1)
        return (found == model.columns([model.label(seen)])[0]).double().mean().item()


def trained(x: Tensor, y: Tensor, names: tuple[str, ...]) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 24), nn.ReLU()
        ).append(nn.Linear(24, len(names)))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(20):
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
    return Classifier.wrap(net.eval(), class_names=names)


@pytest.fixture(scope="module")
def world() -> World:
    generator = torch.Generator().manual_seed(11)
    groups, own = (torch.randn(n, 1, 8, 8, generator=generator) for n in (3, 6))
    y = torch.arange(6).repeat(40)
    x = 0.3 * groups[y // 2] + own[y] + 2.0 * torch.randn(len(y), 1, 8, 8, generator=generator)
    images = LabelledImages(x, y, FINE, "world", tuple(range(len(y))))
    return World(images, trained(x, y, FINE), trained(x, y // 2, ("a", "b", "c")))


def forget(world: World, concept: Concept, model: Classifier, **settings: float) -> ForgetResult:
    samples = concept.take(draw(world.images, concept.given, shots=12))
    given = torch.tensor([label in concept.given for label in FINE])
    retain = concept.seen(world.images.where(~given[world.images.y]))  # nothing says what else is of the concept
    method = Tarf(steps=60, t0=20, t1=6, k=0.5, lr=0.02, batch_size=64, **settings)
    return method(model, samples, retain=retain, runtime=Runtime(DEVICE))


def test_all_matched(world: World) -> None:
    concept = MAP.concept(["a0"], FINE)
    assert concept.setting == "all matched"
    result = forget(world, concept, world.fine).classifier
    assert world.accuracy(result, "a0") < 0.1
    assert all(world.accuracy(result, label) > 0.9 for label in FINE[1:])
    assert [c.name for c in result.forgotten] == ["a0"]


def test_target_mismatch(world: World) -> None:
    concept = MAP.concept(["a"], FINE, given=["a0"])
    assert concept.setting == "target mismatch"
    found = forget(world, concept, world.fine, hidden_classes=len(concept.hidden))
    assert found.record.notes["hidden"] == ["a1"] == list(concept.hidden)
    assert max(world.accuracy(found.classifier, label) for label in concept.labels) < 0.3
    assert all(world.accuracy(found.classifier, label) > 0.9 for label in FINE[2:])
    given, hidden = found.record.recognised
    assert (given.label.name, given.forgotten, hidden.label.name, hidden.n) == ("a0", True, "a1", 40)
    assert hidden.after / hidden.n == world.accuracy(found.classifier, "a1") > 0.05
    assert [c.name for c in found.classifier.forgotten] == ["a0"]  # of a1 more than 5 % is left
    unaware = forget(world, concept, world.fine).classifier
    assert world.accuracy(unaware, "a1") > 0.9


def test_model_mismatch(world: World) -> None:
    concept = MAP.concept(["a0"], ("a", "b", "c"))
    assert concept.setting == "model mismatch"
    result = forget(world, concept, world.coarse)
    assert world.accuracy(result.classifier, "a0") < 0.5 < 0.9 < world.accuracy(world.coarse, "a0")
    assert all(world.accuracy(result.classifier, label) > 0.9 for label in FINE[1:])
    assert result.classifier.forgotten == ()
    assert result.record.notes["part"] == "a0"


def test_data_mismatch(world: World) -> None:
    concept = MAP.concept(["a"], ("a", "b", "c"), given=["a0"])
    assert concept.setting == "data mismatch"
    result = forget(world, concept, world.coarse).classifier
    assert max(world.accuracy(result, label) for label in concept.labels) < 0.1
    assert all(world.accuracy(result, label) > 0.9 for label in FINE[2:])
    assert [c.name for c in result.forgotten] == ["a"]


def test_a_method_that_forgets_whole_classes_refuses_a_part(world: World) -> None:
    concept = MAP.concept(["a0"], ("a", "b", "c"))
    with pytest.raises(DataError, match=r"mask.*forget.*a0"):
        Mask()(world.coarse, concept.take(draw(world.images, concept.given, shots=4)))


def test_a_part_of_the_only_class_that_is_left_can_be_forgotten(world: World) -> None:
    concept = MAP.concept(["a0"], ("a", "b", "c"))
    last = world.coarse.mark_forgotten(world.coarse.classes[1:])
    samples = concept.take(draw(world.images, concept.given, shots=4))
    retain = concept.remaining(world.images)
    with pytest.warns(DataWarning, match=r"160.*b.*c"):
        result = Tarf(steps=2, t1=1)(last, samples, retain=retain, runtime=Runtime(DEVICE))
    assert result.record.cost.steps == 2


def test_a_sample_is_ascended_up_to_the_ceiling() -> None:
    """Unbounded ascent wrecks a net: its gradient does not vanish however wrong the model is."""
    logits = torch.tensor([[0.0, 4.0], [0.0, 1.0]], requires_grad=True)
    bounded = Tarf(ceiling=2.0).bounded(logits, torch.tensor([0, 0]))
    assert bounded.item() == pytest.approx((2.0 + torch.tensor(1 + torch.e).log().item()) / 2)
    (gradient,) = torch.autograd.grad(bounded, logits)
    assert gradient[0].abs().max() == 0
    assert gradient[1, 0] < 0 < gradient[1, 1]


def test_a_diverged_ascent_does_not_leave_nothing_to_descend_on() -> None:
    """Without images the descent would wait for ever; the base class refuses the weights."""
    assert Tarf(hidden_share=0.5).affected(torch.full((4,), torch.nan), torch.tensor([0, 0, 1, 1]), own=[2])[1].all()


def test_part_and_whole_are_different_requests(world: World) -> None:
    part = MAP.concept(["a0"], ("a", "b", "c"))
    samples = part.take(draw(world.images, ["a0"], shots=4))
    retain = part.remaining(world.images)
    brief = Tarf(steps=2, t1=1)
    asked, whole = (
        brief(world.coarse, s, retain=retain, runtime=Runtime(DEVICE)).record
        for s in (samples, replace(samples, part=None))
    )
    assert asked.digest != whole.digest
    assert asked.samples == whole.samples
