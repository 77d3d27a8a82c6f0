"""unhot doctor says before anything is changed what unhot forget does then."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytestmark = [
    pytest.mark.usefixtures("keep_generators"),
    pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning"),
]


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_understood_and_what_would_be_done(unhot, bundle: Path, folders: Path) -> None:
    before = digest(bundle)
    asked = bundle, "--class", 3, "--samples", folders / "flat", "--data", folders / "tree", "--force"
    said = unhot("doctor", *asked)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("Model: lenet5; 61,")
    assert lines[1] == "Head: 'head', from 84 features to 10 outputs."
    assert lines[2] == "Classes: 0 to 9, by number. --classes FILE gives them names."
    assert lines[3].startswith("Pictures are resized to 16 pixels on their shorter side")
    assert lines[4].startswith("Samples: ")
    assert " of 12 of '3' are classified as it" in lines[4]
    assert lines[5].startswith("Test images: ")
    assert " of 36 are classified correctly. Worst class: " in lines[5]
    assert any(line.startswith("unhot forget runs nhle-cwm with steps=16, cut=mask.") for line in lines)
    assert lines[-1] == "unhot forget would go on."
    assert digest(bundle) == before


def test_a_refusal_is_that_of_forget(unhot, bundle: Path, folders: Path, tmp_path: Path) -> None:
    asked = bundle, "--class", 7, "--samples", folders / "flat"
    said = unhot("doctor", *asked)
    refused = unhot("forget", *asked, "--out", tmp_path / "out")
    assert said.code == refused.code == 2
    assert said.err == refused.err
    assert "are classified as '3'" in said.err
    assert "would go on" not in said.out
    assert said.out.startswith("Model: lenet5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("--class", 99, "--samples", "FLAT"), "Unknown class '99'"),
        (("--class", 3, "--samples", "FLAT", "--method", "scrub", "--force"), "scrub needs images of the retained"),
        (("--class", 3, "--samples", "NONE"), "There is no file or folder"),
        (("--samples", "digits"), "Name the class of digits that is to be forgotten: --class."),
    ],
)
def test_other_refusals(unhot, bundle: Path, folders: Path, tmp_path: Path, asked, sentence: str) -> None:
    places = {"FLAT": folders / "flat", "NONE": tmp_path / "none"}
    asked = [places.get(a, a) for a in asked]
    said = unhot("doctor", bundle, *asked)
    assert said.code == 2
    assert sentence in said.err
    assert said.out.startswith("Model: lenet5")
    if "--class" in asked:
        assert unhot("forget", bundle, *asked, "--out", tmp_path / "out").err == said.err


def test_the_class_is_what_most_samples_look_like(unhot, bundle: Path, folders: Path) -> None:
    said = unhot("doctor", bundle, "--samples", folders / "flat", "--json")
    (answers,) = said.json["samples"]
    assert answers["label"]["name"] == answers["answers"][0][0]["name"]
    assert f"{answers['answers'][0][1]} of 12 samples are classified as {answers['label']['name']!r}" in said.err


def test_json_holds_the_refusal(unhot, bundle: Path, folders: Path) -> None:
    said = unhot("doctor", bundle, "--class", 7, "--samples", folders / "flat", "--json")
    assert said.code == 2
    assert said.err == f"Error: {said.json['refusal']}\n"
    assert said.json["model"]["head"] == "head"


def test_a_file_of_weights_of_another_architecture(unhot, bundle: Path, folders: Path, tmp_path: Path) -> None:
    save_file(load_file(bundle / "model.safetensors"), tmp_path / "w.safetensors")
    asked = tmp_path / "w.safetensors", "--class", 3, "--samples", folders / "flat", "--image-size", 16, "--mean", 0.5
    said = unhot("doctor", *asked, "--std", 0.5, "--arch", "resnet9")
    assert said.code == 2
    assert "does not fit the architecture" in said.err or "the head of resnet9" in said.err
