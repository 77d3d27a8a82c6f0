"""Relearning: the curve by a plain loop, steps and ratios by hand, calibration and power on the digits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from handmade import runtime
from torch import nn

from unhot.data.images import LabelledImages
from unhot.evaluation.attacks.relearning import PROBED, Relearning, _with_new_rows
from unhot.evaluation.metric import Case, Finding, NotMeasurable
from unhot.evaluation.view import Views
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes

QUICK = Relearning(steps=8, every=4, shots=4, tries=2)


@pytest.fixture(scope="module")
def full_curves(digits_views) -> dict[tuple[str, int], Finding]:
    """The attack as the audit makes it, on each model of the digits."""
    subjects = (("original", 0), ("masked", 0), ("unlearned", 0), ("retrained", 0), ("retrained", 1))
    return {s: Relearning().run(Case(digits_views, s[0], "test", s[1])) for s in subjects}


def slow_curve(views: Views, model: Classifier, attack: Relearning, attempt: int) -> list[float]:
    """The attack on class 3 of a model with all outputs, line by line."""
    net = copy.deepcopy(model.module)
    head = net.get_submodule(model.head)
    others = [i for i in range(10) if i != 3]
    with torch.no_grad():
        head.weight[3] = 0
        head.bias[3] = sum(head.bias[i] for i in others) / 9
    train, test, spec = views.splits["train"], views.splits["test"], model.input
    generator = views.runtime.generator("relearning", attempt)
    known = [i for i, c in enumerate(train.y.tolist()) if c == 3]
    mine = [known[i] for i in torch.randperm(len(known), generator=generator)[: attack.shots].tolist()]
    rest = torch.tensor([i for i, c in enumerate(train.y.tolist()) if c != 3])
    asked = torch.tensor([i for i, c in enumerate(test.y.tolist()) if c == 3][:PROBED])
    velocity = [torch.zeros_like(p) for p in net.parameters()]
    found = []
    for step in range(attack.steps + 1):
        if step % attack.every == 0:
            said = net(test.inputs(asked, spec, torch.device("cpu"))).argmax(1)
            found.append(float((said == 3).float().mean()))
        drawn = rest[torch.randint(len(rest), (attack.shots,), generator=generator)]
        index = torch.cat([torch.tensor(mine), drawn])
        p = net(train.inputs(index, spec, torch.device("cpu"))).softmax(1)
        loss = -p[torch.arange(len(index)), train.y[index]].log().mean()
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for w, v, g in zip(net.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                w.sub_(attack.lr * v)
    return found


@pytest.mark.parametrize("subject", ["original", "retrained"])
def test_curves_by_a_plain_loop(digits_views, subject) -> None:
    case, attack = Case(digits_views, subject), Relearning(steps=32, every=8, shots=8, tries=2)
    wanted = [slow_curve(digits_views, case.model, attack, i) for i in range(2)]
    for got, curve in zip(attack.curves(case), wanted, strict=True):
        assert got == pytest.approx(curve, abs=0.02)
        assert max(curve) > 0


class Given(Relearning):
    """Relearning with curves given by hand, by subject and run."""

    by_hand: dict[str, list[list[float]]]

    def curves(self, case: Case) -> list[list[float]]:
        return self.by_hand[f"{case.subject} {case.run}"]


def judged(views: Views, *retrained: Sequence[Sequence[float]], mine: Sequence[Sequence[float]]) -> dict:
    """Steps and ratio with the goal at 0.8 of the original's accuracy; evaluations at 0, 4, 8, 12."""
    hand = {f"retrained {i}": c for i, c in enumerate(retrained)} | {"unlearned 0": mine}
    return Given(steps=12, every=4, by_hand=hand).run(Case(views, "unlearned")).estimates


def test_steps_and_ratio_by_hand(digits_views) -> None:
    found = judged(
        digits_views,
        [[0, 0.1, 0.9, 1], [0, 0.1, 0.2, 0.9]],  # 8 and 12 steps
        [[0, 0.9, 0.9, 1], [0, 0.9, 0.9, 0.9]],  # 4 and 4
        mine=[[0, 0.9, 1, 1], [0, 0, 0, 0.1]],  # 4, and never: 16
    )
    assert found["relearn_steps"][:3] == (10, 4, 16)
    # against the mean of the retrained models in each try, 6 and 8
    assert found["relearn_ratio"][:3] == pytest.approx(((4 / 6 + 16 / 8) / 2, 4 / 6, 2))


def test_accuracy_is_the_mean_of_the_curve_over_all_steps_and_tries(digits_views) -> None:
    same = [[0.0, 0.9, 0.9, 1.0]] * 2
    found = judged(digits_views, same, same, mine=[[0.0, 0.5, 0.7, 0.8], [0.1, 0.3, 0.5, 0.7]])["relearn_accuracy"]
    assert found.value == pytest.approx((0.5 + 0.4) / 2)
    assert found.n == 2
    assert 0 <= found.low < 0.4
    assert 0.5 < found.high <= 1
    curves = QUICK.curves(Case(digits_views, "original"))
    e = QUICK.run(Case(digits_views, "original")).estimates["relearn_accuracy"]
    assert e.value == pytest.approx(sum(v for c in curves for v in c) / sum(map(len, curves)))


def test_ratio_of_a_retrained_model_with_itself_is_one(digits_views) -> None:
    (original,), (one, _) = digits_views.results["original"], digits_views.results["retrained"]
    views = Views(original, one, [one], digits_views.labels, digits_views.splits, runtime())
    e = QUICK.run(Case(views, "unlearned")).estimates["relearn_ratio"]
    assert e[:3] == (1, 1, 1)


def test_ratio_with_itself_is_one_when_the_class_is_back_at_once(digits_views) -> None:
    back = [[0.9, 0.9, 0.9, 0.9]] * 2
    assert judged(digits_views, back, back, mine=back)["relearn_ratio"].value == 1


def test_a_ratio_needs_a_retrained_model(zoo) -> None:
    views = zoo.board()
    alone = Views(zoo.original(0), zoo.original(0), [], views.labels, views.splits, runtime())
    found = QUICK.run(Case(alone, "original")).estimates
    assert found["relearn_ratio"] == "no retrained model was given"
    assert found["relearn_steps"].value > 0


def test_too_few_images_to_learn_from(digits_views) -> None:
    with pytest.raises(NotMeasurable, match=r"forgotten.*learn.*10000"):
        Relearning(shots=10_000).run(Case(digits_views, "original"))


@pytest.mark.parametrize("biased", [True, False])
def test_the_new_row_starts_at_no_weights_and_the_mean_bias_of_the_retained_classes(biased) -> None:
    """Every image is at 1: classes 0 and 2 get 2 and 4 there, the mean of their biases is 5, and class 1's own -30."""
    with torch.random.fork_rng(devices=[]):
        model = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(1, 3, bias=biased)), torch.zeros(2, 1, 1, 1))
    with torch.no_grad():
        model.head_layer.weight.copy_(torch.tensor([[-2.0], [7.0], [-2.0]]))
        if biased:
            model.head_layer.bias.copy_(torch.tensor([4.0, -30.0, 6.0]))
    images = LabelledImages(torch.ones(30, 1, 1, 1), torch.arange(30) % 3, None, "ones", tuple(range(30)))
    views = Views(model, model, [], model.classes[1:2], {"test": images, "train": images}, runtime())
    case = Case(views, "original")
    head = _with_new_rows(case).head_layer
    assert head.weight.flatten().tolist() == [-2, 0, -2]
    assert head.bias.tolist() == ([4, 5, 6] if biased else [0, 0, 0])
    (curve,) = Relearning(steps=1, every=1, shots=2, tries=1, lr=1e-9).curves(case)
    assert curve == [1, 1]  # 5 against 4, and 0 against -2: before anything is learned


def test_how_the_row_was_cut_does_not_matter(digits_views, zoo) -> None:
    wanted = QUICK.curves(Case(digits_views, "original"))
    for how in ("mask", "excise"):
        views = zoo.board(unlearned=zoo.cut(0, 3, how))
        assert QUICK.curves(Case(views, "unlearned")) == wanted
    assert QUICK.curves(Case(digits_views, "masked")) == wanted


def test_models_are_left_as_they_were(digits_views) -> None:
    before = [m.sha256() for ms in digits_views.models.values() for m in ms]
    modes = [m.module.training for ms in digits_views.models.values() for m in ms]
    Relearning(steps=4, shots=4, tries=1, lr=0.02).run(Case(digits_views, "unlearned"))
    assert [m.sha256() for ms in digits_views.models.values() for m in ms] == before
    assert [m.module.training for ms in digits_views.models.values() for m in ms] == modes


def seen_and_asked(monkeypatch, case: Case, attack: Relearning) -> tuple[set[int], set[int]]:
    """Positions of the images of class 3 that a net is trained on, and of those that it is asked about."""
    passes: list[tuple[bool, list[int]]] = []
    plain, forward = LabelledImages.inputs, Classifier.logits
    known: dict[bytes, int] = {}

    def watched(self: LabelledImages, index: torch.Tensor, *rest: object) -> torch.Tensor:
        x = plain(self, index, *rest)
        known.update({row.numpy().tobytes(): i for row, i in zip(x, index.tolist(), strict=True) if self.y[i] == 3})
        return x

    def ran(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        found = [known[row] for r in x if (row := r.numpy().tobytes()) in known]
        passes.append((torch.is_grad_enabled(), found))
        return forward(self, x)

    monkeypatch.setattr(LabelledImages, "inputs", watched)
    monkeypatch.setattr(Classifier, "logits", ran)
    attack.curves(case)
    learned, asked = ({i for training, found in passes if training is kind for i in found} for kind in (True, False))
    return learned, asked


def test_without_train_images_one_half_of_the_class_is_learned_from_and_the_other_asked_about(zoo, monkeypatch) -> None:
    views = zoo.board(train=False)
    attack = Relearning(steps=4, every=4, tries=3)
    learned, asked = seen_and_asked(monkeypatch, Case(views, "original"), attack)
    mine = set((views.splits["test"].y == 3).nonzero().flatten().tolist())
    assert len(mine) == 52
    assert not learned & asked
    assert learned | asked <= mine
    assert len(asked) == 26
    assert attack.shots <= len(learned) <= 26


def test_without_train_images_fewer_are_learned_from_where_half_is_less_than_the_shots(zoo, monkeypatch) -> None:
    images = zoo.board(train=False).splits["test"]
    mine = (images.y == 3).nonzero().flatten()
    few = images.select(torch.cat([(images.y != 3).nonzero().flatten(), mine[:11]]))
    views = Views(zoo.original(0), zoo.original(0), [], [zoo.original(0).label(3)], {"test": few}, runtime())
    learned, asked = seen_and_asked(monkeypatch, Case(views, "original"), Relearning(steps=4, every=4, tries=1))
    assert (len(learned), len(asked), len(learned & asked)) == (6, 5, 0)


def test_without_train_images_and_with_too_few_of_the_class_it_says_so(zoo) -> None:
    images = zoo.board(train=False).splits["test"]
    mine = (images.y == 3).nonzero().flatten()
    few = images.select(torch.cat([(images.y != 3).nonzero().flatten(), mine[:9]]))
    views = Views(zoo.original(0), zoo.original(0), [], [zoo.original(0).label(3)], {"test": few}, runtime())
    with pytest.raises(
        NotMeasurable, match=r"^no train images of the class were given, and .* 10 are needed, there are 9$"
    ):
        QUICK.run(Case(views, "original"))


def test_without_train_images_the_original_still_has_it_back_sooner(zoo) -> None:
    views = zoo.board(train=False)
    original, retrained = (Relearning().run(Case(views, s)).estimates for s in ("original", "retrained"))
    assert original["relearn_steps"].high < retrained["relearn_steps"].low
    assert original["relearn_ratio"].high < 0.8


def test_train_images_of_the_class_only_are_not_enough(zoo) -> None:
    views = zoo.board()
    views.splits["train"] = views.splits["train"].where(views.splits["train"].y == 3)
    with pytest.raises(NotMeasurable, match=r"^no images of the other classes to learn from$"):
        QUICK.run(Case(views, "original"))


def test_the_original_has_it_back_sooner_than_models_that_never_saw_it(full_curves) -> None:
    original = full_curves["original", 0].estimates
    for run in (0, 1):
        retrained = full_curves["retrained", run].estimates
        assert original["relearn_steps"].high < retrained["relearn_steps"].low
        assert original["relearn_accuracy"].value > retrained["relearn_accuracy"].value + 0.1
    assert original["relearn_ratio"].high < 0.7
    assert full_curves["masked", 0].estimates == original


def test_two_retrained_models_differ_less_than_either_from_the_original(full_curves) -> None:
    steps = [full_curves[s].estimates["relearn_steps"].value for s in (("retrained", 0), ("retrained", 1))]
    original = full_curves["original", 0].estimates["relearn_steps"].value
    assert abs(steps[0] - steps[1]) < 2 * (min(steps) - original)
    for run in (0, 1):
        assert 0.4 < full_curves["retrained", run].estimates["relearn_ratio"].value < 2.5


def test_the_curve_starts_at_nothing_known_and_ends_at_the_last_step(full_curves) -> None:
    (curve,) = full_curves["original", 0].curves
    assert (curve.name, curve.x[0], curve.x[-1], len(curve.x), len(curve.y)) == ("relearning", 0, 40, 11, 11)
    assert curve.y[0] < 0.2 < 0.8 < curve.y[-1]
    assert all(0 <= v <= 1 for v in curve.y)


def sorted_images(n: int) -> LabelledImages:
    y = torch.arange(3).repeat_interleave(n)  # sorted by class, as an image folder is
    x = torch.zeros(3 * n, 1, 2, 2)
    x[torch.arange(3 * n), 0, 0, 0] = y.float()
    return LabelledImages(x, y, None, "sorted", tuple(range(3 * n)))


def test_with_two_classes_in_a_sorted_set_both_are_asked_about(monkeypatch) -> None:
    with torch.random.fork_rng(devices=[]):
        model = Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.zeros(2, 1, 2, 2))
    images = sorted_images(PROBED + 10)
    splits = {"test": replace(images, origin="asked"), "train": images}
    views = Views(model, model, [], model.classes[:2], splits, runtime())
    asked: list[int] = []
    plain = LabelledImages.inputs

    def watched(self: LabelledImages, index: torch.Tensor, *rest: object) -> torch.Tensor:
        asked.extend(self.y[index].unique().tolist() if self.origin == "asked" else [])
        return plain(self, index, *rest)

    monkeypatch.setattr(LabelledImages, "inputs", watched)
    Relearning(steps=1, every=1, shots=2, tries=1).curves(Case(views, "original"))
    assert set(asked) == {0, 1}


def test_two_classes_are_relearned_together(zoo) -> None:
    model = zoo.original(0).copy()
    views = zoo.board(unlearned=cut_classes(model, [model.label(c) for c in (3, 8)], "excise"), classes=(3, 8))
    wanted = QUICK.curves(Case(views, "original"))
    assert QUICK.curves(Case(views, "unlearned")) == wanted
    assert wanted[0][0] < 0.2
