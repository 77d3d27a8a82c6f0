"""What can be given to audit(), and what is refused in one clear sentence."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade import runtime
from torch import nn

from unhot.data.images import LabelledImages
from unhot.errors import DataError, ModelError, ModelWarning, UnhotError
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import Auditor, audit
from unhot.evaluation.verdict import Thresholds
from unhot.evaluation.view import View, Views
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import replace_layer
from unhot.records.audit import Split, Subject


@pytest.fixture(scope="module")
def tensors(zoo) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The digits as normalised inputs: (train, test), each (x, y)."""
    spec, source = zoo.original(0).input, zoo.source
    cpu = torch.device("cpu")
    return [(i.inputs(torch.arange(len(i)), spec, cpu), i.y) for i in (source.train_images, source.test_images)]


def quick(zoo, **changes: object) -> Audit:
    given = {
        "original": zoo.original(0), "unlearned": zoo.cut(0, 3), "classes": [3], "quick": True, "runtime": runtime(),
        "test": zoo.source.test_images, "retrained": zoo.retrained(3),
    }  # fmt: skip
    return audit(**given | changes)


def values(found: Audit) -> dict:
    return {(m.name, m.subject, m.split): m.value for m in found.record.measurements}


def fewer(zoo, count: int, source: str = "test_images") -> LabelledImages:
    """Images of which only so many are of class 3."""
    images = getattr(zoo.source, source)
    others, mine = (images.y != 3).nonzero().flatten(), (images.y == 3).nonzero().flatten()
    return images.select(torch.cat([others, mine[:count]]))


# models of any origin


def test_foreign_modules_with_tensors_give_what_classifiers_give(zoo, tensors) -> None:
    train, test = tensors
    found = quick(
        zoo, original=zoo.original(0).module, unlearned=zoo.cut(0, 3).module, retrained=[zoo.retrained(3).module],
        train=train, test=test,
    )  # fmt: skip
    wanted = values(zoo.audited("masked"))
    for key, value in values(found).items():
        assert value == pytest.approx(wanted[key], abs=0.02), key  # the features are the same, prototypes drawn alike
    assert found.record.verdict.label == "hidden at the output only"
    assert found.record.inputs.data == "tensors; tensors"


def test_foreign_modules_that_take_no_pixels_lack_the_attacks_on_pixels(zoo, tensors) -> None:
    bare = [m.module for m in (zoo.original(0), zoo.cut(0, 3))]
    found = audit(original=bare[0], unlearned=bare[1], classes=[3], test=tensors[1], runtime=runtime())
    for name in ("over_unlearning", "inversion_recognised"):
        assert found[name].absent_because == "the model does not say how pixels become its inputs"


def test_a_bare_module_beside_a_classifier_sees_the_same_inputs(zoo) -> None:
    """result.model of unhot.forget is an nn.Module: the same net must not lose accuracy by being bare."""
    images = zoo.source.test_images.cached(zoo.original(0).input)
    found = quick(zoo, unlearned=zoo.original(0).module, test=(images.x, images.y))
    assert found["retain_accuracy"] == found.get("retain_accuracy", "original").model_copy(
        update={"subject": "unlearned"}
    )


def test_a_net_of_one_layer_can_be_audited(tensors) -> None:
    (x, y), test = tensors
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    found = audit(original=net, unlearned=net, classes=[3], test=test, train=(x, y), runtime=runtime())
    assert found.record.verdict.label == "not forgotten"
    assert found["retain_accuracy"].value > 0.85
    assert found["relearn_steps"].value is not None


@pytest.mark.filterwarnings("ignore:The original model classifies")
@pytest.mark.parametrize("width", [1, 2])
def test_features_of_one_number_can_be_audited(tensors, width, tmp_path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, other = (nn.Sequential(nn.Flatten(), nn.Linear(256, width), nn.Linear(width, 10)) for _ in range(2))
    other[-1].bias.data[3] = -1e3
    found = audit(
        original=net, unlearned=net, retrained=other, classes=[3], test=tensors[1], train=tensors[0], runtime=runtime()
    )
    assert found["retain_drop"].value == 0
    flat = [c for c in found.record.curves if c.name == "map"]
    assert all(any(c.x) and any(c.y) == (width == 2) for c in flat)
    found.save(tmp_path / "audit")


def with_outputs(model: Classifier, kept: list[int]) -> Classifier:
    """A net trained with fewer outputs: its classes are counted anew."""
    bare = model.copy()
    head = bare.head_layer
    fewer = nn.Linear(head.in_features, len(kept))
    with torch.no_grad():
        fewer.weight.copy_(head.weight[kept])
        fewer.bias.copy_(head.bias[kept])
    replace_layer(bare.module, bare.head, fewer)
    return replace(Classifier.wrap(bare.module), input=model.input)


def test_a_retrained_model_with_fewer_outputs_and_an_excised_one(zoo) -> None:
    kept = [i for i in range(10) if i != 3]
    with torch.random.fork_rng(devices=[]):
        smaller = with_outputs(zoo.retrained(3), kept)
    assert len(smaller.classes) == 9
    with pytest.warns(ModelWarning, match=r"retrained.*9.*outputs"):
        found = quick(zoo, unlearned=zoo.cut(0, 3, "excise"), retrained=smaller, train=zoo.source.train_images)
    wanted = values(zoo.audited("masked"))
    cut = {(n, s, "test") for n in ("mia_auc_loss", "mia_auc_confidence") for s in ("unlearned", "retrained")}
    cut |= {
        (n, "retrained", "test") for n in ("original_outputs_r2", *(f"output_recovery_{k}_shot" for k in (1, 5, 20)))
    }
    for key, value in values(found).items():
        if key not in cut:  # these read the output of the class itself, which is not there
            assert value == pytest.approx(wanted[key], abs=0.02), key
    assert found.get("mia_auc_loss", "retrained").value == found["mia_auc_loss"].value == 0.5
    assert found.get("retain_accuracy", "retrained").value > 0.9  # columns would be shifted from 4 on
    assert found.record.verdict.label == "hidden at the output only"


def test_a_bottleneck_is_audited_by_what_is_behind_it(zoo) -> None:
    found = quick(zoo, unlearned=zoo.cut(0, 3, "bottleneck"), train=zoo.source.train_images)
    masked = values(zoo.audited("masked"))
    for name in ("retain_accuracy", "forget_accuracy"):
        assert found[name].value == pytest.approx(masked[name, "unlearned", "test"], abs=1e-6)
    assert found["probe_accuracy"].value < masked["probe_accuracy", "unlearned", "test"]


def test_more_outputs_than_the_original_are_refused(zoo) -> None:
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Flatten(), nn.Linear(256, 12))
    with pytest.raises(ModelError, match=r"retrained.*10.*11"):
        quick(zoo, retrained=replace(Classifier.wrap(net), input=zoo.original(0).input))


@pytest.mark.parametrize("what", ["original", "unlearned"])
def test_what_is_no_model_is_refused(zoo, tensors, what) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module.*unhot\.Classifier.*str"):
        quick(zoo, **{what: "model"}, test=tensors[1])


def test_a_model_that_gives_no_numbers_is_refused_or_damaged(zoo) -> None:
    broken = zoo.original(0).copy()
    with torch.no_grad():
        broken.head_layer.weight.fill_(float("nan"))
        next(broken.module.parameters()).fill_(float("nan"))
    try:
        found = quick(zoo, unlearned=broken)
    except UnhotError:
        return
    assert found.record.verdict.label == "model damaged"


def test_a_model_that_gets_every_retained_image_wrong_is_damaged(zoo) -> None:
    wrong = zoo.original(0).copy()
    others = [i for i in range(10) if i != 3]
    with torch.no_grad():
        wrong.head_layer.weight[others] = 0
        wrong.head_layer.bias[others] = 0
        wrong.head_layer.bias[0] = 1e3  # everything is 0 ...
    test = zoo.source.test_images
    found = quick(zoo, unlearned=wrong, test=test.where(test.y != 0), retrained=None)  # ... of which there is none
    assert found.record.verdict.label == "model damaged"


# classes and images


def test_two_forgotten_classes(zoo) -> None:
    original = zoo.original(0)
    masked = cut_classes(original.copy(), [original.label(c) for c in (3, 8)], "mask")
    found = quick(zoo, unlearned=masked, classes=[3, "8"], retrained=None)
    y = zoo.source.test_images.y
    assert [c.name for c in found.record.classes] == ["3", "8"]
    assert found["forget_accuracy"].n == int(((y == 3) | (y == 8)).sum())
    assert found["retain_accuracy"].n == int(((y != 3) & (y != 8)).sum())
    assert found["forget_accuracy"].value == found.get("forget_accuracy", "masked").value == 0
    assert found.record.verdict.label == "hidden at the output only"
    assert quick(zoo, unlearned=original, classes=[8, 3], retrained=None).record.verdict.label == "not forgotten"


def test_two_classes_are_what_two_single_ones_average_to(zoo) -> None:
    given = {"unlearned": zoo.original(1), "retrained": None}
    both = quick(zoo, classes=[3, 8], **given)
    singles = [quick(zoo, classes=[c], **given) for c in (3, 8)]
    fisher = [s["feature_fisher_ratio"].value for s in singles]
    assert both["feature_fisher_ratio"].value == pytest.approx(sum(fisher) / 2)
    hits = [s["knn_accuracy"].value * s["knn_accuracy"].n for s in singles]
    assert both["knn_accuracy"].value == pytest.approx(sum(hits) / both["knn_accuracy"].n)


@pytest.mark.parametrize(
    ("classes", "error", "says"),
    [
        ([12], UnhotError, "Unknown class '12'"),
        (["cat"], UnhotError, "Unknown class 'cat'"),
        ([], DataError, "No class to forget is named"),
        (1, DataError, r"Expected a list of classes, got 1. Write \[1\]"),
        (list(range(10)), ModelError, "Every class is named as forgotten"),
    ],
)
def test_classes_that_cannot_be_audited(zoo, classes, error, says) -> None:
    with pytest.raises(error, match=says):
        quick(zoo, classes=classes)


def test_a_class_named_twice_is_refused_or_taken_once(zoo) -> None:
    try:
        found = quick(zoo, classes=[3, "3"], retrained=None)
    except UnhotError:
        return
    assert len(found.record.classes) == 1


def test_data_with_classes_that_the_model_does_not_have_is_refused(zoo) -> None:
    with torch.random.fork_rng(devices=[]):
        small = replace(Classifier.wrap(nn.Sequential(nn.Flatten(), nn.Linear(256, 5))), input=zoo.original(0).input)
    with pytest.raises(DataError, match=r"model.*classes"):
        quick(zoo, original=small, unlearned=small, retrained=None)


def test_test_images_without_the_class_are_refused(zoo) -> None:
    with pytest.raises(DataError, match=r"3.*test.*classes"):
        quick(zoo, test=fewer(zoo, 0))


def test_test_images_of_the_class_only_are_refused(zoo) -> None:
    test = zoo.source.test_images
    with pytest.raises(DataError, match=r"images.*forgotten.*classes"):
        quick(zoo, test=test.where(test.y == 3))


def test_train_images_without_the_class_leave_its_measures_absent(zoo) -> None:
    """What is left of the data after a request to forget: the likeliest train split of all."""
    try:
        found = quick(zoo, train=fewer(zoo, 0, "train_images"))
    except UnhotError:
        return
    assert found.get("forget_accuracy", "unlearned", "train").absent_because
    assert found.get("retain_accuracy", "unlearned", "train").value > 0.9


def test_train_images_of_the_class_only_leave_the_others_absent(zoo) -> None:
    train = zoo.source.train_images
    try:
        found = quick(zoo, train=train.where(train.y == 3))
    except UnhotError:
        return
    assert found.get("retain_accuracy", "unlearned", "train").absent_because


def test_too_few_images_of_the_class(zoo) -> None:
    found = quick(zoo, test=fewer(zoo, 4), train=fewer(zoo, 4, "train_images"))
    few = "only 4 images of a forgotten class to learn from"
    assert found["probe_accuracy"].absent_because == f"{few}, at least 5 are needed"
    assert found["knn_accuracy"].absent_because == f"{few}, at least 20 are needed"
    assert found["prototype_attack_accuracy"].absent_because == f"{few}, 5 are needed"
    assert found["feature_cka"].absent_because == "fewer than 5 images of the forgotten classes"
    assert found["mia_auc"].absent_because.startswith("only 4 train and 4 test images of the forgotten classes")
    assert found["class_mia_gap"].absent_because.startswith("fewer than 20 test images")
    assert found["forget_accuracy"].value == 0
    assert found.get("forget_accuracy", "original").n == 4


# what is left as it was


def test_the_callers_models_and_generators_are_untouched(zoo, tensors) -> None:
    nets = [copy.deepcopy(m.module) for m in (zoo.original(0), zoo.cut(0, 3), zoo.retrained(3))]
    for net in nets:
        net.train()
        net.zero_grad()
        next(net.parameters()).requires_grad_(False)
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in nets]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    original, unlearned, retrained = nets
    x, y = (t.clone() for t in tensors[1])
    audit(
        original=original, unlearned=unlearned, retrained=retrained, classes=[3], test=(x, y), train=tensors[0],
        runtime=runtime(),
    )  # fmt: skip
    for net, state in zip(nets, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        assert all(m.training for m in net.modules())
        assert all(p.grad is None for p in net.parameters())
        assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert torch.equal(x, tensors[1][0])
    assert torch.equal(y, tensors[1][1])


@pytest.mark.filterwarnings("ignore:The original model classifies")
def test_a_module_in_training_mode_is_measured_as_deployed(zoo, tensors) -> None:
    """Batch normalisation and dropout must not run as in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [nn.BatchNorm1d(256), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5)]
        net = nn.Sequential(nn.Flatten(), *body, nn.Linear(32, 10))
        net(tensors[0][0])  # running statistics of the train images
    given = {"unlearned": net, "retrained": None, "test": tensors[1]}
    evaluated = values(quick(zoo, original=net.eval(), **given))
    assert values(quick(zoo, original=net.train(), **given)) == evaluated


def without_five(zoo) -> Classifier:
    """A model that was trained without 3, and never answers 5."""
    reference = zoo.retrained(3, 10).copy()
    return cut_classes(reference, [reference.label(5)], "mask")


def test_an_auditor_that_is_asked_again_says_what_a_new_one_says(zoo) -> None:
    """Of other models, of other classes of the same original, and of the original itself."""
    reference = without_five(zoo)
    data = {"test": zoo.source.test_images, "train": zoo.source.train_images, "retrained": reference}
    auditor = Auditor(zoo.original(0), **data, runtime=runtime())
    timed = {"cost", "environment"}
    for unlearned, classes in (
        (zoo.retrained(3, 11), [3]),
        (zoo.cut(0, 3), [3]),
        (zoo.cut(0, 5), [5]),
        (zoo.cut(0, 3), [3, 5]),
        (zoo.cut(0, 3), [5, 3]),
        (zoo.original(0), [3]),
        (zoo.cut(0, 3), [3]),
    ):
        again = auditor.audit(unlearned, classes, quick=True).record
        fresh = quick(zoo, unlearned=unlearned, classes=classes, **data).record
        assert again.model_dump(exclude=timed) == fresh.model_dump(exclude=timed)


def test_a_retrained_model_that_is_audited_is_still_compared_with_the_other_retrained_ones(zoo) -> None:
    reference = zoo.retrained(3, 10)
    same = reference.copy()
    same.head_layer.weight.data[0, 0] += 1e-6
    found = quick(zoo, unlearned=same, retrained=reference)
    assert found["output_js_to_retrained"].value == pytest.approx(0, abs=1e-6)
    assert "second retrained model" in found.get("output_js_to_retrained", "retrained").absent_because


def test_an_auditor_runs_the_original_and_the_retrained_once_and_lets_go_of_the_unlearned(zoo, monkeypatch) -> None:
    ran: list[str] = []
    plain = Views._view

    def counted(self: Views, model: Classifier, subject: Subject, split: Split) -> View:
        ran.append(subject)
        view = plain(self, model, subject, split)
        if subject == "unlearned":
            alive.append(weakref.ref(view.features))
        return view

    alive: list[weakref.ref] = []
    monkeypatch.setattr(Views, "_view", counted)
    auditor = Auditor(zoo.original(0), test=zoo.source.test_images, retrained=without_five(zoo), runtime=runtime())
    for label in (3, 5, 3):
        model = zoo.cut(0, label)
        alive += [weakref.ref(model), weakref.ref(model.module)]
        auditor.audit(model, [label], quick=True)
    del model
    gc.collect()
    assert sorted(ran) == ["original", "retrained", "unlearned", "unlearned", "unlearned"]
    assert [ref() for ref in alive] == [None] * 9


# settings


def test_thresholds_are_those_given(zoo) -> None:
    strict = Thresholds(damage=0.0, forgotten=0.0, unchanged=1.0, closed=0.0)
    assert quick(zoo, thresholds=strict).record.verdict.thresholds == strict.model_dump()
    lax = quick(zoo, unlearned=zoo.original(0), thresholds=Thresholds(forgotten=1.0)).record.verdict
    assert lax.label == "hidden at the output only"


def test_no_more_images_than_the_limit_are_looked_at(zoo, monkeypatch) -> None:
    monkeypatch.setattr("unhot.evaluation.auditor.TRAIN_IMAGES", 300)
    monkeypatch.setattr("unhot.evaluation.auditor.TEST_IMAGES", 200)
    found = quick(zoo, train=zoo.source.train_images)
    assert found.record.inputs.images == {"test": 200, "train": 300}
    assert found["forget_accuracy"].n + found["retain_accuracy"].n == 200
    assert values(found) == values(quick(zoo, train=zoo.source.train_images))


def test_tensors_that_are_inputs_of_one_model_only_are_refused(zoo, tensors) -> None:
    other = zoo.original(0).input.model_copy(update={"std": (0.9,)})
    differs = replace(zoo.cut(0, 3), input=other)
    with pytest.raises(DataError, match=r"tensors.*floats.*normalise"):
        quick(zoo, unlearned=differs, test=tensors[1])
    assert quick(zoo, unlearned=differs)["retain_accuracy"].n > 0  # pixels are normalised for each
    resized = replace(zoo.cut(0, 3), input=zoo.original(0).input.model_copy(update={"resize": None}))
    quick(zoo, unlearned=resized, test=tensors[1])
