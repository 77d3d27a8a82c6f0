"""Requests that do not name classes of the model, and what they mean to it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unhot.data.concept import Concept, LabelMap
from unhot.data.images import LabelledImages
from unhot.data.samples import draw
from unhot.errors import DataError, InputError, UnknownNameError

FINE = ("bag", "sandal", "shirt", "sneaker", "top")
MAP = LabelMap({"shoes": ("sandal", "sneaker"), "tops": ("shirt", "top")})
COARSE = ("tops", "bag", "shoes")


@pytest.fixture
def images() -> LabelledImages:
    """Ten images of each label, whose pixels are their number."""
    x = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 2, 2).clone()
    return LabelledImages(x, torch.arange(50) % 5, FINE, "wardrobe", tuple(range(50)))


def of(names: list[str], classes: tuple[str, ...], given: list[str] | None = None) -> Concept:
    return MAP.concept(names, classes, given)


def test_a_group_stands_for_its_labels_and_a_label_for_itself() -> None:
    assert MAP.labels(["shoes", "bag", "sandal"]) == ("sandal", "sneaker", "bag")


@pytest.mark.parametrize(
    ("names", "classes", "given", "setting", "touched", "hidden", "parts"),
    [
        (["sandal"], FINE, None, "all matched", ("sandal",), (), ()),
        (["shoes"], FINE, None, "all matched", ("sandal", "sneaker"), (), ()),
        (["shoes"], COARSE, None, "all matched", ("shoes",), (), ()),
        (["bag"], COARSE, None, "all matched", ("bag",), (), ()),
        (["shoes"], FINE, ["sandal"], "target mismatch", ("sandal", "sneaker"), ("sneaker",), ()),
        (["shoes", "bag"], COARSE, ["shoes"], "target mismatch", ("shoes", "bag"), ("bag",), ()),
        (["sandal"], COARSE, None, "model mismatch", ("shoes",), (), ("shoes",)),
        (["sandal", "top"], COARSE, None, "model mismatch", ("shoes", "tops"), (), ("shoes", "tops")),
        (["shoes"], COARSE, ["sandal"], "data mismatch", ("shoes",), (), ()),
    ],
)
def test_the_four_settings(
    names: list[str],
    classes: tuple[str, ...],
    given: list[str] | None,
    setting: str,
    touched: tuple[str, ...],
    hidden: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    concept = of(names, classes, given)
    assert (concept.setting, concept.touched, concept.hidden, concept.parts) == (setting, touched, hidden, parts)


def test_samples_are_labelled_as_the_model_sees_them(images: LabelledImages) -> None:
    concept = of(["sandal", "top"], COARSE)
    drawn = draw(images, concept.given, shots=3)
    taken = concept.take(drawn)
    assert taken.classes == ("shoes", "tops")
    assert taken.part == "sandal, top"
    assert torch.equal(taken.images.x, drawn.images.x)
    assert taken.images.class_names == COARSE
    by_fine = {"sandal": "shoes", "top": "tops"}
    assert [taken.images.class_names[i] for i in taken.images.y] == [by_fine[FINE[i]] for i in drawn.images.y]


@pytest.mark.parametrize(("names", "classes"), [(["shoes"], FINE), (["shoes"], COARSE), (["bag"], COARSE)])
def test_whole_classes_are_not_a_part(images: LabelledImages, names: list[str], classes: tuple[str, ...]) -> None:
    concept = of(names, classes)
    taken = concept.take(draw(images, concept.given, shots=2))
    assert taken.part is None
    assert taken.classes == concept.touched


def test_what_remains_is_all_but_the_concept(images: LabelledImages) -> None:
    fine = of(["shoes"], FINE, ["sandal"]).remaining(images)
    assert {fine.class_names[i] for i in fine.y} == {"bag", "shirt", "top"}
    part = of(["sandal"], COARSE).remaining(images)
    assert part.class_names == COARSE
    assert part.keys == tuple(k for k in images.keys if FINE[k % 5] != "sandal")
    shoes = part.where(part.y == COARSE.index("shoes"))
    assert {FINE[k % 5] for k in shoes.keys} == {"sneaker"}


def test_hidden_classes_remain_for_a_method_that_looks_for_them(images: LabelledImages) -> None:
    concept = of(["shoes"], FINE, ["sandal"])
    assert concept.hidden == ("sneaker",)
    seen = concept.remaining(images, with_hidden=True)
    assert {seen.class_names[i] for i in seen.y} == {"bag", "shirt", "sneaker", "top"}
    part = of(["sandal", "sneaker"], COARSE, ["sandal"]).remaining(images, with_hidden=True)
    assert {FINE[k % 5] for k in part.keys} == {"bag", "shirt", "top"}


def test_images_of_a_class_do_not_say_which_are_of_a_part_of_it(images: LabelledImages) -> None:
    coarse = MAP.coarse(images)
    with pytest.raises(DataError, match=r"concept.*part.*shoes"):
        of(["sandal"], COARSE).remaining(coarse)
    whole = of(["shoes"], COARSE).seen(coarse)
    assert torch.equal(whole.y, of(["shoes"], COARSE).seen(images).y)
    elsewhere = coarse.where(coarse.y != coarse.class_names.index("shoes"))
    assert len(of(["sandal"], COARSE).remaining(elsewhere)) == 30


def test_classes_keep_the_order_of_the_model(images: LabelledImages) -> None:
    """A model without names of its own takes classes by their position."""
    assert of(["sandal"], COARSE).seen(images).class_names == COARSE
    backwards = of(["sandal"], FINE[::-1]).seen(images)
    assert backwards.class_names == FINE[::-1]
    assert [backwards.class_names[i] for i in backwards.y] == [FINE[i] for i in images.y]


def test_images_under_the_names_of_groups(images: LabelledImages) -> None:
    coarse = MAP.coarse(images)
    assert coarse.class_names == ("shoes", "tops", "bag")
    expected = {"sandal": "shoes", "sneaker": "shoes", "shirt": "tops", "top": "tops", "bag": "bag"}
    assert [coarse.class_names[i] for i in coarse.y] == [expected[FINE[i]] for i in images.y]
    assert torch.equal(coarse.x, images.x)


def test_a_label_that_the_model_does_not_know_is_left_to_the_model_to_refuse(images: LabelledImages) -> None:
    seen = of(["shoes"], ("shoes", "tops")).seen(images)
    assert seen.class_names == ("shoes", "tops", "bag")


@pytest.mark.parametrize(
    ("names", "classes", "given", "message"),
    [
        (["shoes"], FINE, ["bag"], "bag is given but is not part of shoes"),
        (["sandal", "bag"], COARSE, None, "all of bag but only part of shoes"),
        (["sandal", "top"], COARSE, ["sandal"], "part of tops, of which no images are given"),
        ([], FINE, None, "at least one name"),
        (["shoes"], FINE, [], "at least one label"),
    ],
)
def test_requests_that_make_no_sense(
    names: list[str], classes: tuple[str, ...], given: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        of(names, classes, given)


def test_an_unknown_name_is_offered_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'sandal'"):
        of(["sandals"], FINE)
    with pytest.raises(UnknownNameError, match="'sandal'"):
        of(["sandal"], ("tops", "bag"))


def test_samples_of_other_labels_are_refused(images: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"of bag\. Pass samples of sandal"):
        of(["shoes"], COARSE, ["sandal"]).take(draw(images, ["bag"], shots=2))


def test_a_map_of_labels_that_images_do_not_have(images: LabelledImages) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'sandal'"):
        LabelMap({"shoes": ("sandals", "sneaker")}).coarse(images)


def test_labels_need_names(images: LabelledImages) -> None:
    with pytest.raises(DataError, match="classes have no names"):
        MAP.coarse(replace(images, class_names=None))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["x"], "b": ["x", "y"]}, "x in two groups"),
        ({"a": []}, "no labels in a"),
        ({"a": ["a", "b"]}, "a is both a group and a label"),
        ({"a": ["b"], "b": ["c"]}, "b is both a group and a label"),
    ],
)
def test_label_maps_that_make_no_sense(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelMap(groups)


def test_a_group_may_be_the_one_label_in_it() -> None:
    assert LabelMap({"bag": ["bag"], "shoes": ["sandal"]}).labels(["bag", "shoes"]) == ("bag", "sandal")


def test_a_label_map_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"shoes": ["sandal", "sneaker"]}))
    assert LabelMap.read(path).labels(["shoes"]) == ("sandal", "sneaker")


@pytest.mark.parametrize("text", ["[]", '{"a": "b"}', '{"a": [1]}', "{"])
def test_a_file_that_is_not_a_label_map(tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"map\.json is not (a label map|valid JSON)"):
        LabelMap.read(path)
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        LabelMap.read(tmp_path / "none.json")


def test_many_labels_take_time_in_proportion(tmp_path: Path) -> None:
    names = tuple(f"label {i}" for i in range(60_000))
    path = tmp_path / "map.json"
    path.write_text(json.dumps({f"group {g}": names[g::30_000] for g in range(30_000)}))
    images = LabelledImages(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([7]), names, "many", (0,))
    began = time.process_time()
    groups = LabelMap.read(path)
    coarse = groups.coarse(images)
    whole = groups.concept(groups.groups, coarse.class_names)
    assert whole.setting == "all matched"
    assert len(whole.remaining(images)) == 0
    part = groups.concept([names[7]], coarse.class_names)
    assert part.parts == ("group 7",)
    assert part.setting == "model mismatch"
    assert time.process_time() - began < 10  # a quadratic step takes minutes
