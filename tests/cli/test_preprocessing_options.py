"""--image-size, --resize, --interpolation, --mean and --std, from the command line to the bundle and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unhot.data.source import photo_input
from unhot.models.arch import build
from unhot.models.classifier import Classifier

Run = Callable[..., Any]
ASKED = ("--resize", 16, "--crop", 16, "--interpolation", "bicubic", "--mean", 0.3, "--std", 0.33)


@pytest.fixture
def weights(original: Classifier, tmp_path: Path) -> Path:
    save_file(original.module.state_dict(), tmp_path / "lenet5.safetensors")
    return tmp_path / "lenet5.safetensors"


def asked(folder: Path) -> bool:
    found = json.loads((folder / "bundle.json").read_text())["input"]
    return (found["height"], found["resize"], found["interpolation"], found["mean"], found["std"]) == (
        *(16, 16, "bicubic"),
        *([0.3], [0.33]),
    )


def test_a_weights_file_and_a_bundle_take_what_is_asked(
    unhot: Run, weights: Path, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    rest = ("--class", 0, "--samples", "digits", "--method", "mask")
    for name, model in (("a", (weights, "--arch", "lenet5")), ("b", (bundle,))):
        said = unhot("forget", *model, *rest, *ASKED, "--out", tmp_path / name)
        assert said.code == 0, said.err
        assert asked(tmp_path / name)
    assert not said.err.startswith("For ")


def test_weights_that_read_grey_take_the_pictures_of_a_folder_as_grey(
    unhot: Run, weights: Path, folders: Path, tmp_path: Path
) -> None:
    rest = ("--class", 3, "--samples", folders / "flat", "--method", "mask", "--image-size", 16, "--force")
    said = unhot("forget", weights, "--arch", "lenet5", *rest, "--out", tmp_path / "a")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "a" / "bundle.json").read_text())["input"]["channels"] == 1


def test_what_a_weights_file_is_taken_for_is_said(unhot: Run, weights: Path, tmp_path: Path) -> None:
    call = ["audit", "--original", weights, "--unlearned", weights, "--arch", "lenet5", "--class", 3]
    said = unhot(*call, "--data", "digits", "--quick", "--out", tmp_path / "audit")
    assert said.code == 0, said.err
    text = "resized to 16 pixels on their shorter side, cropped at the centre to 16 by 16 pixels (bilinear), grey"
    assert f"For lenet5.safetensors pictures are {text}" in said.err
    assert f"Pictures are {text}" in (tmp_path / "audit" / "report.html").read_text()


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")
def test_a_weights_file_has_the_class_names_of_the_data(unhot: Run, tmp_path: Path) -> None:
    """--data names the outputs of a weights file, as it does for an audit, also if the samples are a folder."""
    weights = tmp_path / "lenet5.safetensors"
    save_file(build("lenet5", 10, photo_input(16), {}).state_dict(), weights)
    for split in ("train", "test"):
        for name in "abcdefghij":
            (tmp_path / "named" / split / name).mkdir(parents=True)
            image = Image.new("L", (16, 16), 20 * ord(name) % 255)
            image.save(tmp_path / "named" / split / name / "0.png")
    call = [
        "forget",
        weights,
        "--arch",
        "lenet5",
        "--class",
        "d",
        "--method",
        "mask",
        "--force",
        "--out",
        tmp_path / "u",
    ]
    said = unhot(
        *call, "--samples", tmp_path / "named" / "train" / "d", "--data", tmp_path / "named", "--image-size", 16
    )
    assert said.code == 0, said.err
    assert "lenet5.safetensors has no class names. Its outputs are assumed to be, in order: a, b, c," in said.err
    noted = json.loads((tmp_path / "u" / "bundle.json").read_text())["head_edits"][-1]
    assert noted == {"kind": "forgotten", "classes": [{"index": 3, "name": "d"}]}


def test_training_takes_what_is_asked(unhot: Run, tmp_path: Path) -> None:
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1]
    assert unhot(*call, *ASKED, "--out", tmp_path / "net").code == 0
    assert asked(tmp_path / "net")


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--mean", "0.1,0.2", "mean and std need 1 values"),
        ("--std", "x", "Expected --std as one number"),
        ("--resize", 8, "at least 16 by 16"),
        ("--interpolation", "cubic", "interpolation"),
    ],
)
def test_what_cannot_be_is_refused(
    unhot: Run, bundle: Path, tmp_path: Path, option: str, value: object, sentence: str
) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--out", tmp_path / "out"]
    said = unhot(*call, option, value)
    assert said.code == 2
    assert sentence in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("keep_generators")
def test_a_graph_of_one_size_takes_no_other(unhot: Run, tmp_path: Path) -> None:
    from unhot.models.bundle import save
    from unhot.records.model import InputSpec

    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    spec = InputSpec(height=16, width=16, channels=1, mean=(0.0,), std=(1.0,))
    save(Classifier.wrap(net, torch.rand(2, 1, 16, 16), input=spec), tmp_path / "graph")
    call = ["forget", tmp_path / "graph", "--class", 3, "--samples", "digits", "--out", tmp_path / "out"]
    said = unhot(*call, "--image-size", 20)
    assert said.code == 2
    assert "This bundle holds a graph of inputs (1, 16, 16)" in said.err
