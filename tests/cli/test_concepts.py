"""Requests for several classes of a model, or for a part of one, by a label map: from the files to the models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unhot.data.source import Source
from unhot.models.bundle import load
from unhot.models.classifier import Classifier

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")
GROUPS = {"low": ["0", "1", "2"], "high": ["7", "8", "9"]}
TARF = ["--method", "tarf", "--retain", "digits", "-o", "steps=60", "-o", "t0=20"]


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "groups.json"
    path.write_text(json.dumps(GROUPS))
    return path


@pytest.fixture
def coarse(unhot: Run, groups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that tells the groups apart, and the digits that are in none."""
    out = tmp_path_factory.getbasetemp() / "coarse-model"
    if not out.exists():
        call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 6, "--label-map", groups]
        assert unhot(*call, "--out", out).code == 0
    return out


def accuracy(model: Classifier, digits: Source, label: int, name: str) -> float:
    """Of the test images of a digit, as the class of the model that it belongs to."""
    images = digits.test_images.where(digits.test_images.y == label)
    with torch.no_grad():
        found = model.logits(images.inputs(torch.arange(len(images)), model.input, model.device)).argmax(1)
    return (found == model.columns([model.label(name)])[0]).double().mean().item()


def test_a_model_of_groups_is_trained(coarse: Path) -> None:
    assert [c.name for c in load(coarse).classes] == ["low", "high", "3", "4", "5", "6"]
    record = json.loads((coarse / "record.json").read_text())
    assert record["dataset"] == "digits by groups.json"
    assert record["test_accuracy"] > 0.85


def test_all_matched_several_classes(unhot: Run, bundle: Path, groups: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--label-map", groups, "--class", "low", "--class", 5, "--samples", "digits"]
    said = unhot(*call, "--shots", 8, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.out.startswith("Forgot low, 5 with nhle-cwm from 32 images in ")
    assert [c.name for c in load(tmp_path / "u").forgotten] == ["0", "1", "2", "5"]
    by_name = ["forget", bundle, *(a for c in (0, 1, 2, 5) for a in ("--class", c)), "--samples", "digits"]
    assert unhot(*by_name, "--shots", 8, "--out", tmp_path / "v").code == 0
    assert load(tmp_path / "u").sha256() == load(tmp_path / "v").sha256()


def test_all_matched_a_group_that_is_a_class(unhot: Run, coarse: Path, groups: Path, tmp_path: Path) -> None:
    call = ["forget", coarse, "--label-map", groups, "--class", "high", "--samples", "digits", "--json"]
    said = unhot(*call, "--method", "mask", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["classes"] == [{"index": 1, "name": "high"}]
    assert said.json["samples"]["count"] == [48]
    labels = ["7", "8", "9"]
    assert said.json["notes"]["concept"] == {"setting": "all matched", "labels": labels, "given": labels}
    assert json.loads((tmp_path / "u" / "record.json").read_text()) == said.json


def test_target_mismatch(unhot: Run, bundle: Path, groups: Path, tmp_path: Path) -> None:
    """How many classes are missing is told by the map; which, the method is to find, and the map says if it did."""
    call = ["forget", bundle, "--label-map", groups, "--class", "low", "--samples", "digits", "--given", 0]
    said = unhot(*call, *TARF, "--json", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["hyperparameters"]["hidden_classes"] == 2
    assert said.json["notes"]["concept"]["setting"] == "target mismatch"
    assert {"1", "2"} <= set(said.json["notes"]["gravity"])
    found = said.json["notes"]["hidden"]
    assert len(found) == 2
    left = {c["label"]["name"]: c["after"] / c["n"] for c in said.json["recognised"]}
    assert list(left) == ["0", *found]
    assert [c.name for c in load(tmp_path / "u").forgotten] == [name for name, share in left.items() if share <= 0.05]
    assert ("by the label map it is 1, 2" in said.err) == (set(found) != {"1", "2"})
    all_given = ["forget", bundle, "--label-map", groups, "--class", "low", "--samples", "digits", *TARF]
    more = unhot(*all_given, "-o", "hidden_classes=1", "--out", tmp_path / "w")
    assert (more.code, "as the rest of the concept; by the label map it is nothing." in more.err) == (0, True)
    own = unhot(*call, *TARF, "-o", "hidden_classes=1", "--json", "--out", tmp_path / "v")
    assert own.json["hyperparameters"]["hidden_classes"] == 1
    assert "by the label map it is 1, 2. Give images of all of it to skip this search." in own.err


@pytest.mark.filterwarnings("ignore:Class 3 is taken to be the class of that name")
def test_model_mismatch(unhot: Run, coarse: Path, groups: Path, digits: Source, tmp_path: Path) -> None:
    call = ["forget", coarse, "--label-map", groups, "--class", 0, "--samples", "digits", "--json"]
    said = unhot(*call, *TARF, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert (said.json["notes"]["part"], said.json["notes"]["concept"]["setting"]) == ("0", "model mismatch")
    before, after = load(coarse), load(tmp_path / "u")
    assert after.forgotten == ()
    assert accuracy(before, digits, 0, "low") > 0.9 > 0.5 > accuracy(after, digits, 0, "low")
    for label, name in ((1, "low"), (2, "low"), (7, "high"), (3, "3")):
        assert accuracy(after, digits, label, name) > accuracy(before, digits, label, name) - 0.15


def test_data_mismatch(unhot: Run, coarse: Path, groups: Path, tmp_path: Path) -> None:
    call = ["forget", coarse, "--label-map", groups, "--class", "low", "--samples", "digits", "--given", 1]
    said = unhot(*call, "--json", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["notes"]["concept"] == {"setting": "data mismatch", "labels": GROUPS["low"], "given": ["1"]}
    assert said.json["samples"]["count"] == [16]
    assert [c.name for c in load(tmp_path / "u").forgotten] == ["low"]


def test_samples_and_retained_images_in_folders(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"some": ["2", "3"]}')
    call = ["forget", bundle, "--label-map", path, "--class", "some", "--samples", folders / "nested", "--json"]
    said = unhot(*call, "--method", "ssd", "--retain", folders / "nested", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.json["samples"]["count"] == [12, 12]
    flat = ["forget", bundle, "--label-map", path, "--class", "some", "--samples", folders / "flat", "--given", 3]
    said = unhot(*flat, *TARF, "--json", "--out", tmp_path / "v")
    assert (said.code, said.json["samples"]["count"]) == (0, [12])


BAD = {
    "a map that is not there": (None, ["--class", "low"], "map.json cannot be read: No such file or directory"),
    "no JSON": ("{", ["--class", "low"], "map.json is not valid JSON"),
    "another JSON": ("[1]", ["--class", "low"], 'is not a label map. Write {"group": ["label", "label"]}'),
    "a label twice": ('{"a": ["0"], "b": ["0"]}', ["--class", "a"], "has 0 in two groups"),
    "an empty group": ('{"a": []}', ["--class", "a"], "has no labels in a"),
    "a group that is a label": ('{"1": ["0"], "a": ["1"]}', ["--class", "a"], "both a group and a label"),
    "an unknown concept": (GROUPS, ["--class", "lo"], "Unknown label or class 'lo'. Did you mean 'low'?"),
    "a label of no image": ({"a": ["0", "zero"]}, ["--class", "a"], "Unknown label or class 'zero'"),
    "given what is not of it": (GROUPS, ["--class", "low", "--given", 8], "8 is given but is not part of low"),
    "every class": ({"a": [str(i) for i in range(10)]}, ["--class", "a"], "Every class would be forgotten"),
    "a method that finds no classes": (GROUPS, ["--class", "low", "--given", 0], "none are given of 1, 2"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_maps_and_requests(unhot: Run, bundle: Path, tmp_path: Path, what: str) -> None:
    content, more, sentence = BAD[what]
    path = tmp_path / "map.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    said = unhot("forget", bundle, "--label-map", path, *more, "--samples", "digits", "--out", tmp_path / "u")
    assert (said.code, said.out) == (2, "")
    assert said.err.count("Error: ") == 1
    assert sentence in said.err
    assert not (tmp_path / "u").exists()


def test_bad_requests_of_a_model_of_groups(
    unhot: Run, coarse: Path, groups: Path, folders: Path, tmp_path: Path
) -> None:
    call = ["forget", coarse, "--label-map", groups, "--out", tmp_path / "u"]
    whole = unhot(*call, "--samples", "digits", "--class", "0")
    can = "nhle-cwm cannot forget only a part of a class, here 0. Choose a method that can: tarf."
    assert (whole.code, can in whole.err) == (2, True)
    both = unhot(*call, "--samples", "digits", "--class", "0", "--class", "high", *TARF)
    assert (both.code, "all of high but only part of low" in both.err) == (2, True)
    parts = unhot(*call, "--samples", "digits", "--class", "0", "--class", "8", "--given", "0", *TARF)
    assert (parts.code, "part of high, of which no images are given" in parts.err) == (2, True)
    mixed = tmp_path / "mixed"
    shutil.copytree(folders / "nested" / "2", mixed / "low")
    shutil.copytree(folders / "nested" / "3", mixed / "3")
    told = unhot(*call, "--samples", "digits", "--class", "0", "--method", "tarf", "--retain", mixed)
    assert (told.code, "the concept is a part of low, and the images do not say" in told.err) == (2, True)
    assert not (tmp_path / "u").exists()


def test_given_needs_a_label_map(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    said = unhot("forget", bundle, "--class", 3, "--given", 3, "--samples", "digits", "--out", tmp_path / "u")
    assert (said.code, "It needs --label-map" in said.err) == (2, True)


def test_a_map_of_labels_that_the_data_do_not_have(unhot: Run, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"a": ["0", "zero"]}')
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--label-map", tmp_path / "map.json"]
    said = unhot(*call, "--out", tmp_path / "m")
    assert (said.code, "Unknown label 'zero'" in said.err) == (2, True)
