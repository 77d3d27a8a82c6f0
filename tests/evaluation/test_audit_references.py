"""What an audit asks of retrained models, and of weights that have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from handmade import runtime
from levels import level_images, level_net
from torch import nn

from unhot.errors import ModelError, ModelWarning
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import Auditor, audit
from unhot.evaluation.verdict import Thresholds
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.records.measure import Holder
from unhot.report.sentences import sentence

NAMES = ["ape", "bee", "cat", "dog", "emu"]
LAX = Thresholds(damage=1.0)
TEST = level_images([20] * 5, NAMES)


def net() -> Classifier:
    return level_net(5, names=NAMES)


def never(name: str, bias: float = -1e6) -> Classifier:
    """A net that never answers a class; nets of other biases have other weights."""
    model = net()
    model.head_layer.bias.data[NAMES.index(name)] = bias
    return model


def audited(**changes: Any) -> Audit:
    given = {"original": net(), "unlearned": never("cat"), "classes": ["cat"], "test": TEST, "quick": True}
    return audit(**given | {"runtime": runtime()} | changes)


def flags(found: Audit) -> dict[str, str]:
    """Return the flags, but for the one that these nets share their weights: test_reference.py tests that."""
    given = [f for f in found.record.verdict.flags if f.code != "reference_partial"]
    return {f.code: sentence(f, found.record) for f in given}


def test_a_reference_that_fits_is_taken_without_a_word() -> None:
    found = audited(retrained=[never("cat", -2e6), never("cat", -3e6)])
    assert flags(found) == {}
    assert len(found.record.inputs.retrained_sha256) == 2
    assert tuple(found.record.verdict.holders) == get_args(Holder)


@pytest.mark.parametrize(
    "references",
    [lambda: [net()], lambda: [never("cat", -2e6), never("cat", -2e6)], lambda: [never("cat", -2e6), net()]],
    ids=["the original", "one twice", "the original among others"],
)
def test_references_that_are_not_each_of_their_own_are_refused(references: Any) -> None:
    with pytest.raises(ModelError, match="Two of the original and the retrained models have the same weights"):
        Auditor(net(), test=TEST, retrained=references(), runtime=runtime())


def test_the_unlearned_model_is_no_reference_of_itself() -> None:
    with pytest.raises(ModelError, match="The unlearned model is also given as a retrained one"):
        audited(retrained=never("cat"))
    auditor = Auditor(net(), test=TEST, retrained=never("cat", -2e6), runtime=runtime())
    with pytest.raises(ModelError, match="The unlearned model is also given"):
        auditor.audit(never("cat", -2e6), ["cat"], quick=True)
    assert auditor.audit(never("cat"), ["cat"], quick=True)["forget_accuracy"].value == 0


def test_a_reference_that_knows_the_class_is_refused() -> None:
    knows = never("bee", -2e6)
    with pytest.raises(ModelError, match=r"Retrained model 2 classifies 100% of the test images of cat correctly"):
        audited(retrained=[never("cat", -2e6), knows])


def test_where_nothing_is_concluded_from_it_such_a_reference_is_only_flagged() -> None:
    """The unlearned model still recognises the class: the other measures, matched by name, are right all the same."""
    same = net()
    same.head_layer.bias.data += 1
    with pytest.warns(ModelWarning, match="classifies 100% of the test images of cat correctly"):
        found = audited(unlearned=same, retrained=never("bee", -2e6))
    assert found.record.verdict.label == "not forgotten"
    assert flags(found)["reference_unfit"].startswith("A retrained model is none: it was trained on the class")
    assert found.get("forget_accuracy", "original").value == 1


@pytest.mark.parametrize(("known", "refused"), [(2, False), (3, True)])
def test_a_reference_may_hit_the_class_by_chance(known: int, refused: bool) -> None:
    """Two of 20 images are a tenth."""
    test = level_images([20] * 5, NAMES)
    places = (test.y == 2).nonzero().flatten()[known:]
    test.x[places] = test.x[(test.y == 1).nonzero().flatten()[: len(places)]]  # but these look like another class
    if refused:
        with pytest.raises(ModelError, match=r"Retrained model 1 classifies 15% of the test images of cat"):
            audited(test=test, retrained=never("ape", -2e6))
    else:
        audited(test=test, retrained=never("ape", -2e6))


def test_an_original_that_has_forgotten_the_class_is_refused() -> None:
    model = net()
    gone = cut_classes(model.copy(), [model.label("cat")], "mask")
    with pytest.raises(ModelError, match=r"original model has forgotten cat already.*swapped"):
        audited(original=gone, unlearned=net())


@pytest.mark.parametrize(("wrong", "flagged"), [(2, False), (3, True)])
def test_a_reference_of_another_accuracy_is_flagged(wrong: int, flagged: bool) -> None:
    """Of 80 retained images two are less than 3 %, and three are more."""
    model = never("cat", -2e6)
    test = level_images([20] * 5, NAMES)
    test.x[:wrong] = 2  # darker than any other
    dark = nn.Sequential(Dark(), model.module)
    found = audited(test=test, retrained=Classifier.wrap(dark, class_names=NAMES, input=model.input))
    said = flags(found)
    assert set(said) - {"reference_architecture"} == ({"reference_accuracy"} if flagged else set())
    assert not flagged or "more than 0.03" in said["reference_accuracy"]


class Dark(nn.Module):
    """Makes bright what is very dark."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.amax((1, 2, 3), keepdim=True) < 0.015, torch.ones_like(x), x)


def test_one_of_several_references_of_another_accuracy_is_flagged() -> None:
    worse = never("cat", -2e6)
    worse.head_layer.bias.data[0] = -1e6
    found = audited(retrained=[never("cat", -3e6), worse])
    assert set(flags(found)) == {"reference_accuracy"}


def widened(model: Classifier, by: int) -> Classifier:
    """The same function with more features, which are all 0."""
    made = model.copy()
    middle, head = made.module[2], made.module[3]
    middle.weight = nn.Parameter(torch.cat([middle.weight, torch.zeros(by, 1)]))
    head.weight = nn.Parameter(torch.cat([head.weight, torch.zeros(len(head.weight), by)], 1))
    middle.out_features, head.in_features = middle.out_features + by, head.in_features + by
    return made


def test_a_reference_of_another_architecture_is_flagged() -> None:
    assert set(flags(audited(retrained=[never("cat", -2e6), widened(never("cat"), 3)]))) == {"reference_architecture"}


# whose verdict


@pytest.mark.parametrize("holder", get_args(Holder))
def test_the_headline_is_that_of_the_holder_that_is_asked_for(holder: Holder) -> None:
    found = audited(holder=holder, retrained=never("cat", -2e6)).record.verdict
    assert (found.holder, found.label, found.because) == (
        holder,
        found.holders[holder].label,
        found.holders[holder].because,
    )


class Blank(nn.Module):
    """Makes all images the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.5)


def stashed(model: Classifier, shape: Sequence[int]) -> Classifier:
    made = model.copy()
    made.module.register_parameter("stash", nn.Parameter(torch.ones(*shape)))
    return made


@pytest.mark.parametrize(("shape", "counts"), [((4,), True), ((3,), False)])
def test_weights_without_effect_that_could_hold_a_row_leave_the_weights_undecided(
    shape: tuple[int, ...], counts: bool
) -> None:
    net = never("cat")
    net.head_layer.bias.data[0] = 1e6
    # nothing is left of the class, nor of others
    changed = Classifier.wrap(nn.Sequential(Blank(), net.module), class_names=NAMES, input=net.input)
    given = {"retrained": never("cat", -2e6), "unlearned": stashed(changed, shape)}
    found = audited(**given, thresholds=LAX).record.verdict.holders
    codes = [r.code for r in found["weights"].because]
    assert ("unused_weights" in codes) == counts
    assert "unused_weights" not in [r.code for r in found["features"].because]
    if counts:
        assert found["weights"].label == "undecided"
        assert found["weights"].because[0].numbers == {"count": 4}
