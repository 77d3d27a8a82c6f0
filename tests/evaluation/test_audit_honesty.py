"""What an audit says of its own inputs: earlier requests, rare classes, images seen in training, records of others."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

import pytest
import torch
from handmade import runtime
from levels import level_images, level_net
from torch import nn

from unhot.data.images import LabelledImages
from unhot.data.samples import draw
from unhot.errors import DataError, DataWarning, ModelError, ModelWarning
from unhot.evaluation import attacks
from unhot.evaluation import auditor as audits
from unhot.evaluation.audit import Audit, described
from unhot.evaluation.auditor import Auditor, audit
from unhot.evaluation.metric import Attack, Case, Finding
from unhot.evaluation.stats import Estimate
from unhot.methods import get
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.models.classifier import Classifier
from unhot.models.cut import Cut, cut_classes
from unhot.records.audit import Subject
from unhot.records.measure import Measure
from unhot.report.audited import Audited
from unhot.report.page import render
from unhot.report.sentences import sentence
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics

NAMES = ["ape", "bee", "cat", "dog", "emu"]


def audited(original: Classifier, test: LabelledImages, **changes: object) -> Audit:
    given = {"original": original, "unlearned": original, "classes": ["cat"], "test": test, "quick": True}
    return audit(**given | {"runtime": runtime()} | changes)


def value(found: Audit, name: str, subject: str = "unlearned") -> float | None:
    return found.get(name, subject).value


def test_train_images_without_the_deleted_class_leave_the_attacks_what_test_images_give() -> None:
    model, test = level_net(5, names=NAMES), level_images([60] * 5, NAMES)
    train = level_images([60, 60, 0, 60, 60], NAMES, "other levels")
    train.x[:, 0, 1, 1] -= 5  # or they would be test images
    alone, beside = audited(model, test), audited(model, test, train=train)
    for name in ("probe_accuracy", "knn_accuracy", "prototype_attack_accuracy"):
        assert alone[name].value is not None
        assert beside[name] == alone[name]


# what earlier requests did


@pytest.mark.parametrize("first", ["mask", "excise"])
@pytest.mark.parametrize("of", ["the model before this request", "the first model"])
@pytest.mark.filterwarnings("ignore:levels. 15 images of bee, which the model was made to forget before")
def test_a_class_that_went_before_is_neither_forgotten_nor_retained(first: Cut, of: str) -> None:
    model, test = level_net(5, names=NAMES), level_images([15] * 5, NAMES)
    before = cut_classes(model.copy(), [model.classes[1]], first)
    after = cut_classes(before.copy(), [model.classes[2]], "mask")
    found = audited(model if of == "the first model" else before, test, unlearned=after)
    for subject in ("original", "masked", "unlearned"):
        assert found.get("retain_accuracy", subject).n == 45
        assert value(found, "retain_accuracy", subject) == 1.0
    assert value(found, "forget_accuracy") == 0.0
    inputs = found.record.inputs
    assert (inputs.images, inputs.left_out) == ({"test": 60}, {"test": 15})
    assert [c.name for c in inputs.forgotten_before] == ["bee"]
    assert any("15 test images of bee, which an earlier request made the model forget" in f for f in flags(found))
    assert {c.label.name for c in found.record.per_class} == {"ape", "cat", "dog", "emu"}


def flags(found: Audit) -> tuple[str, ...]:
    record = found.record
    return tuple(sentence(f, record) for f in record.verdict.flags)


def test_audits_of_models_that_forgot_unlike_classes_share_no_images() -> None:
    model, test = level_net(5, names=NAMES), level_images([15] * 5, NAMES)
    once = cut_classes(model.copy(), [model.classes[2]], "mask")
    twice = cut_classes(once.copy(), [model.classes[1]], "mask")
    auditor = Auditor(model, test=test, runtime=runtime())
    assert auditor.audit(once, ["cat"], quick=True)["retain_accuracy"].n == 60
    with pytest.warns(DataWarning, match=r"15 images of bee"):
        assert auditor.audit(twice, ["cat"], quick=True)["retain_accuracy"].n == 45


def test_every_class_but_those_that_went_before_cannot_be_named() -> None:
    model = level_net(3, names=NAMES[:3])
    before = cut_classes(model.copy(), [model.classes[1]], "mask")
    with pytest.warns(DataWarning), pytest.raises(ModelError, match=r"Every.*class.*forgotten"):
        audited(before, level_images([5] * 3, NAMES[:3]), classes=["ape", "cat"])


class Peek(Method):
    """A method that says which retained classes it was given."""

    name: ClassVar[str] = "peek"
    uses: ClassVar[tuple[Use, ...]] = ("retain",)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        return Outcome(cut_classes(model, data.labels, "mask"), "done", {"seen": sorted(set(data.retain.y.tolist()))})


def test_images_of_a_class_that_went_before_are_not_retained_nor_kept_in_a_guard() -> None:
    model, images = level_net(5, names=NAMES), level_images([20] * 5, NAMES)
    before = cut_classes(model.copy(), [model.classes[1]], "mask")
    with pytest.warns(DataWarning, match=r"20 images of bee"):
        guard = ClassStatistics.collect(before, images, runtime())
    assert [c.name for c in guard.info.classes] == ["ape", "cat", "dog", "emu"]
    with pytest.warns(DataWarning, match=r"levels.*40.*forget"):
        retained = before.align(images, [model.classes[2], *before.forgotten])
    assert sorted(set(retained.y.tolist())) == [0, 3, 4]
    with pytest.warns(DataWarning, match=r"20 images of bee"):
        result = Peek()(before, draw(images, ["cat"], 4), retain=images, runtime=runtime())
    assert result.record.notes["seen"] == [0, 3, 4]


# which images are looked at


@pytest.mark.parametrize(("there", "looked_at"), [(1, 1), (30, 30), (150, 150), (260, 200)])
def test_a_rare_class_of_a_large_set_is_looked_at(monkeypatch: pytest.MonkeyPatch, there: int, looked_at: int) -> None:
    monkeypatch.setattr(audits, "TEST_IMAGES", 1_000)
    test = level_images([6_000, 6_000, there, 6_000, 6_000], NAMES)
    found = audited(level_net(5, names=NAMES), test)
    assert found.get("forget_accuracy", "original").n == looked_at
    assert found.record.inputs.images == {"test": 1_000}


def test_of_a_balanced_set_the_same_images_are_looked_at_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "TEST_IMAGES", 1_000)
    test = level_images([600] * 5, NAMES)
    order = torch.randperm(3_000, generator=runtime().generator("audit", "levels"))[:1_000].sort().values
    found = audited(level_net(5, names=NAMES), test)
    assert (
        found.record.inputs.data_sha256
        == audited(level_net(5, names=NAMES), replace(test.select(order), origin="another")).record.inputs.data_sha256
    )


def test_no_images_of_the_class_is_said_only_if_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "TEST_IMAGES", 100)
    with pytest.raises(DataError, match=r"levels: no images of cat"):
        audited(level_net(5, names=NAMES), level_images([600, 600, 0, 600, 600], NAMES))


# what is said of them


def test_test_images_that_are_train_images() -> None:
    model, train = level_net(5, names=NAMES), level_images([20] * 5, NAMES)
    other = replace(train, x=train.x.clone())
    other.x[:, 0, 3, 3] = 99
    test = replace(train, x=torch.cat([train.x[:7], other.x[7:]]))
    seen = len({tuple(x.flatten().tolist()) for x in train.x[:7]})
    again = sum(any(torch.equal(x, t) for t in train.x) for x in test.x)
    assert again >= seen
    with pytest.warns(DataWarning, match=rf"{again} of the 100 test images are among the train images"):
        found = audited(model, test, train=train)
    assert found.record.inputs.test_in_train == again
    assert any(f.startswith(f"{again} of the 100 test images are train images too") for f in flags(found))
    apart = audited(model, other, train=train)
    assert (apart.record.inputs.test_in_train, flags(apart)) == (0, ())


def test_an_original_near_chance_is_said() -> None:
    """As where pixels are normalised in another way, or the columns are in another order."""
    turned = replace(level_net(5, range(5)[::-1]), classes=level_net(5, names=NAMES).classes)
    test = level_images([20] * 5, NAMES)
    with pytest.warns(DataWarning, match=r"classifies.*0\.000.*correctly"):
        found = audited(turned, test)
    assert any("guessing would give 0.200. Check the preprocessing" in f for f in flags(found))


def test_a_record_of_other_weights_is_not_believed() -> None:
    model, test = level_net(5, names=NAMES), level_images([20] * 5, NAMES)
    result = get("mask")()(model, draw(test, ["cat"], 4))
    own = audited(model, test, unlearned=result.classifier, made_by=result.record)
    assert own.record.made_by == result.record
    assert flags(own) == ()
    with pytest.warns(ModelWarning, match=r"record.*unlearned.*weights"):
        other = audited(model, test, unlearned=model, made_by=result.record)
    assert (other.record.made_by, other.record.cost.forget_seconds) == (None, None)
    assert any("is of other weights" in f for f in flags(other))


def test_a_model_that_was_made_from_another_original_is_noticed() -> None:
    model, test = level_net(5, names=NAMES), level_images([20] * 5, NAMES)
    result = get("mask")()(model, draw(test, ["cat"], 4))
    changed = replace(model, module=deepcopy(model.module))
    with torch.no_grad():
        changed.head_layer.weight.mul_(1.5)
    with pytest.warns(ModelWarning, match="made from a model with weights"):
        found = audited(changed, test, unlearned=result.classifier, made_by=result.record)
    assert any("made from another model than the original" in f for f in flags(found))
    again = get("mask")()(result.classifier, draw(test, ["dog"], 4))
    chain = audited(model, test, unlearned=again.classifier, made_by=again.record, classes=["cat", "dog"])
    assert not any("made from another model" in f for f in flags(chain))


# pictures


class Shades(Attack):
    """An attack from outside that makes pictures under names of its own."""

    def run(self, case: Case) -> Finding:
        shade = 40 * get_args(Subject).index(case.subject)
        grey, colour = torch.full((3, 1, 4, 6), shade), torch.full((2, 3, 5, 5), 200)
        pictures = {"Light & shade": grey.to(torch.uint8), "light-&-shade": colour.to(torch.uint8)}
        return Finding({"shade": Estimate(0.5, 0.4, 0.6, 3)}, pictures=pictures)


def test_pictures_of_an_attack_from_outside_are_saved_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks.catalogue, "_entries", dict(attacks.catalogue._entries))
    shade = Measure(name="shade", title="Shade", group="Attacks", sentence="How dark it is.", low=0, high=1)
    caption = attacks.Caption("What is light", "Nothing to see.")
    attacks.register("shades", "greys", shade, pictures={"Light & shade": caption})(Shades)
    found = audited(level_net(5, names=NAMES), level_images([20] * 5, NAMES))
    first, second = found.record.pictures
    assert (first.name, first.title, second.name, second.title) == (
        "Light & shade",
        "What is light",
        "light-&-shade",
        "",
    )
    assert (first.files["masked"].images, first.files["masked"].height, first.files["masked"].width) == (3, 4, 6)
    assert "retrained" not in first.files
    found.save(tmp_path / "audit")
    again = Audited.read(tmp_path / "audit")
    assert again.record == found.record
    assert set(again.images) == set(found.images)
    assert all((again.images[name] == found.images[name]).all() for name in found.images)
    page = (tmp_path / "audit" / "report.html").read_text()
    assert render([again]) == page
    assert "What is light</h3>" in page
    assert "light-&amp;-shade</h3>" in page
    assert "2 images of the original, masked and unlearned model" in page  # which made the same


def test_more_pictures_than_a_page_would_read_are_not_kept() -> None:
    assert described("x.png", torch.empty(2**10, 1, 2**8, 2**8, dtype=torch.uint8)) is not None
    assert described("x.png", torch.empty(2**10 + 1, 1, 2**8, 2**8, dtype=torch.uint8)) is None
    assert described("x.png", torch.empty(0, 1, 8, 8, dtype=torch.uint8)) is None


# models and images at the edge


class Broken(nn.Module):
    """A net that computes no number for images that begin with a bright pixel."""

    def __init__(self, net: nn.Module, value: float) -> None:
        super().__init__()
        self.net, self.value = net, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bad = (x[:, :, 0, 0] > 0.99)[..., None, None]
        return self.net(torch.where(bad, torch.full_like(x, self.value), x))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("subject", ["original", "unlearned", "retrained"])
@pytest.mark.parametrize("at", [0, 70])
def test_a_model_that_gives_no_number_for_one_image_is_named(number: float, subject: str, at: int) -> None:
    model, test = level_net(5, names=NAMES), level_images([20] * 5, NAMES)
    test.x[at, 0, 0, 0] = 255
    broken = replace(model, module=Broken(model.module, number), head=f"net.{model.head}")
    cuts = (("unlearned", "mask"), ("retrained", "excise"))
    others = {s: cut_classes(model.copy(), [model.label("cat")], cut) for s, cut in cuts}
    models = {"original": model, **others, subject: broken}
    expected = "cannot be audited" if at == 0 else r"gives NaN or infinite values for 1 of 100 test images"
    with pytest.raises(ModelError, match=rf"The {subject} model {expected}"):
        audited(test=test, **models)


def small_net(features: int, classes: int, weight: float | None = None) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body, head = nn.Linear(16, features), nn.Linear(features, classes)
    if weight is not None:
        body.weight.data.fill_(weight)
        head.weight.data.fill_(weight)
        head.bias.data.fill_(weight)
    return replace(
        Classifier.wrap(nn.Sequential(nn.Flatten(), body, head)), input=level_net(2).input, example_shape=None
    )


@pytest.mark.filterwarnings("ignore:The original model classifies", "ignore:.* test images are among the train")
@pytest.mark.parametrize(
    ("features", "weight", "train"), [(1, None, False), (1, 0.0, True), (6, None, True), (6, 0.0, False)]
)
@pytest.mark.parametrize("counts", [(1, 1), (1, 1, 1), (2, 1, 3), (1, 5, 5), (5, 1, 1), (12, 12, 12), (30, 30)])
def test_small_sets_and_nets_of_few_features(
    counts: tuple[int, ...], features: int, weight: float | None, train: bool
) -> None:
    """Whatever cannot be measured is absent, with the reason."""
    original, unlearned = small_net(features, len(counts)), small_net(features, len(counts), weight)
    if weight is not None:
        original = unlearned
    reference = unlearned.copy()
    reference.head_layer.bias.data += 3.0
    reference.head_layer.bias.data[0] = -100.0
    images = level_images(counts)
    found = audit(
        original=original, unlearned=unlearned, retrained=[reference], classes=[0], test=images,
        train=level_images([2 * n for n in counts]) if train else None, runtime=runtime(), quick=counts[0] != 5,
    )  # fmt: skip
    assert found["forget_accuracy"].n == counts[0]
    for m in found.record.measurements:
        assert (m.value is None) == (m.absent_because is not None), m.name
