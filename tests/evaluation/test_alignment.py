"""Columns, labels, folders and models go together by class name: with perfect nets every accuracy is 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handmade import runtime
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import level_folders, level_images, level_net
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset

from support import class_images
from unhot.data.images import LabelledImages
from unhot.data.samples import draw
from unhot.errors import DataError, DataWarning
from unhot.evaluation.audit import Audit
from unhot.evaluation.auditor import audit
from unhot.methods import get
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.formats.weights import WeightsFile, load_weights

TWELVE = [str(i) for i in range(12)]
CRANES = ["crane", "heron", "crane", "stork"]


def audited(original: Classifier, test: LabelledImages, **changes: object) -> Audit:
    given = {"original": original, "unlearned": original, "classes": ["10"], "test": test, "quick": True}
    return audit(**given | {"runtime": runtime()} | changes)


def accuracies(found: Audit, subject: str = "original") -> tuple[float | None, float | None]:
    return found.get("retain_accuracy", subject).value, found.get("forget_accuracy", subject).value


def as_text(count: int) -> LabelledImages:
    """Twelve numbered classes, sorted as text, as torchvision's ImageFolder sorts them."""
    images = level_images([count] * 12)
    names = sorted(TWELVE)
    lookup = torch.tensor([names.index(n) for n in TWELVE])
    return replace(images, y=lookup[images.y], class_names=tuple(names))


@pytest.mark.filterwarnings("ignore:Class 10 is taken")
def test_classes_0_to_11_are_matched_by_name_and_not_as_sorted_text(tmp_path: Path) -> None:
    model = level_net(12)
    for test in (as_text(4), class_images(level_folders(tmp_path / "tree", TWELVE, 4)), level_images([4] * 12)):
        for wanted in ("10", 10):
            found = audited(model, test, classes=[wanted])
            assert accuracies(found) == (1.0, 1.0)
            assert [c.name for c in found.record.classes] == ["10"]


@pytest.mark.filterwarnings("ignore:Class 10 is taken")
@pytest.mark.parametrize("order", [None, range(12)[::-1], [TWELVE.index(n) for n in sorted(TWELVE)]])
def test_forget_and_audit_of_the_same_class_look_at_the_same_column(order: list[int] | None) -> None:
    model = level_net(12, order)
    for wanted in ("10", 10):
        unlearned = get("mask")()(model, draw(as_text(4), [wanted], 4)).classifier
        assert [c.name for c in unlearned.forgotten] == ["10"]
        found = audited(model, as_text(4), unlearned=unlearned, classes=[wanted])
        assert accuracies(found) == (1.0, 1.0)
        assert accuracies(found, "unlearned") == (1.0, 0.0)


@settings(max_examples=5)
@given(st.permutations(range(6)), st.integers(3, 5))
def test_a_retrained_model_with_its_classes_in_another_order(order: list[int], k: int) -> None:
    """It was trained without the class, and perhaps without others; it names those that it has."""
    names = ["cat", "dog", "cow", "emu", "fox", "gnu"]
    test = level_images([4] * 6, names)
    other = level_net(6, order[:k], names)
    found = audited(level_net(6, names=names), test, classes=[names[order[5]]], retrained=other)
    assert found.get("retain_accuracy", "retrained").value == pytest.approx(k / 5)
    turned = audited(level_net(6, names=names), test, classes=["cat"], unlearned=level_net(6, order, names))
    assert accuracies(turned, "unlearned") == (1.0, 1.0)
    assert turned.record.verdict.label == "not forgotten"


def test_two_classes_with_one_name_are_told_apart_by_position_or_refused() -> None:
    model, test = level_net(4, names=CRANES), level_images([5] * 4, CRANES)
    assert accuracies(audited(model, test, classes=[2])) == (1.0, 1.0)
    excised = cut_classes(model.copy(), [model.classes[0]], "excise")
    assert accuracies(audited(model, test, classes=[0], unlearned=excised), "unlearned") == (1.0, 0.0)
    unlearned = get("mask")()(model, draw(test, [2], 4)).classifier
    assert unlearned.forgotten == (model.classes[2],)
    with pytest.raises(DataError, match=r"several.*classes.*crane"):
        audited(model, level_images([5] * 3, CRANES[:3]), classes=["stork"])


def test_a_net_without_names_takes_those_of_the_data_by_position_and_says_so() -> None:
    names = ["ape", "bee", "cat", "dog"]
    with pytest.warns(DataWarning, match=r"levels.*class.*name.*position.*'ape'.*'0'"):
        found = audited(level_net(4), level_images([5] * 4, names), classes=[2])
    assert accuracies(found) == (1.0, 1.0)


def test_a_bare_net_has_the_classes_of_the_original() -> None:
    names = ["dog", "ape", "cat", "bee"]
    model, test = level_net(4, names=names), level_images([5] * 4, names)
    result = get("mask")()(model, draw(test, ["cat"], 4))
    assert accuracies(audited(model, test, unlearned=result.model, classes=["cat"]), "unlearned") == (1.0, 0.0)


class Levels(Dataset):
    """A data set of torch with class names."""

    def __init__(self, images: LabelledImages) -> None:
        self.images, self.classes = images, list(images.class_names or ())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.images.x[i], int(self.images.y[i])


def test_what_is_drawn_by_an_index_of_the_data_is_what_is_forgotten() -> None:
    """The data sorts its classes, the model does not: number 0 is another class to either."""
    names = ["zebra", "ape", "mole"]
    model = level_net(3, names=names)
    images = level_images([6] * 3)
    by_name = Levels(replace(images, y=torch.tensor([2, 0, 1])[images.y], class_names=tuple(sorted(names))))
    unlearned = get("mask")()(model, draw(by_name, [0], 4)).classifier
    assert [c.name for c in unlearned.forgotten] == ["ape"]
    found = audited(model, by_name, unlearned=unlearned, classes=unlearned.forgotten)
    assert accuracies(found, "unlearned") == (1.0, 0.0)


def factory(outputs: int, **_: object) -> nn.Module:
    return level_net(outputs).module


def test_weights_take_numbers_for_outputs_in_whatever_order_the_data_has_them(tmp_path: Path) -> None:
    model = level_net(12)
    save_file(model.module.state_dict(), tmp_path / "net.safetensors")
    how = WeightsFile(arch=f"{__name__}:factory", input=model.input, arch_options={}, data_names=as_text(1).class_names)
    loaded = load_weights(tmp_path / "net.safetensors", how)
    assert [c.name for c in loaded.classes] == TWELVE
    assert accuracies(audited(loaded, as_text(4))) == (1.0, 1.0)
