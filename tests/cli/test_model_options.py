"""Models of other libraries from the command line, and what is said of them there."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import unhot as library
from kinds import CLASSES, VIT
from unhot.data.source import photo_input
from unhot.errors import InputError, ModelError
from unhot.models.arch import build
from unhot.models.formats.asked import read_class_names
from unhot.models.formats.checkpoint import read_weights

Run = Callable[..., Any]
NAMES = [f"name {i}" for i in range(10)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    return tmp_path / "pictures"


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning")
def test_a_folder_of_transformers_forgets_a_class_by_its_name(unhot: Run, pictures: Path, tmp_path: Path) -> None:
    folder = VIT(tmp_path / "vit").path
    call = ["forget", folder, "--class", "dog", "--samples", pictures, "--method", "mask", "--force"]
    said = unhot(*call, "--out", tmp_path / "unlearned")
    assert said.code == 0, said.err
    assert "For vit pictures are resized to 32 by 32 pixels, whatever their shape" in said.err
    info = json.loads((tmp_path / "unlearned" / "bundle.json").read_text())
    assert [c["name"] for c in info["classes"]] == list(CLASSES)
    assert info["origin"]["files"]["config.json"] == json.loads((folder / "config.json").read_text())
    assert set(info["origin"]["files"]) == {"config.json", "preprocessor_config.json"}
    x = torch.rand(4, 3, 32, 32)
    original, unlearned = library.load(folder), library.load(tmp_path / "unlearned")
    assert (unlearned.logits(x).argmax(1) != 3).all()
    kept = [0, 1, 2, 4]
    torch.testing.assert_close(unlearned.logits(x)[:, kept], original.logits(x)[:, kept])


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning")
def test_the_user_overrides_a_folder(unhot: Run, pictures: Path, tmp_path: Path) -> None:
    folder = VIT(tmp_path / "vit").path
    (tmp_path / "names.txt").write_text("v\nw\nx\ny\nz\n")
    call = ["forget", folder, "--samples", pictures, "--method", "mask", "--force", "--classes", tmp_path / "names.txt"]
    said = unhot(*call, "--class", "y", "--mean", 0.25, "--out", tmp_path / "unlearned")
    assert said.code == 0, said.err
    info = json.loads((tmp_path / "unlearned" / "bundle.json").read_text())
    assert [c["name"] for c in info["classes"]] == list("vwxyz")
    assert info["input"]["mean"] == [0.25] * 3
    said = unhot(*call, "--class", "dog", "--out", tmp_path / "no")
    assert said.code == 2
    assert "Unknown class 'dog'" in said.err
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    again = unhot(call[0], tmp_path / "unlearned", *call[2:], "--class", "z", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert "unlearned is a bundle with class names of its own: --classes is not used for it." in again.err


@pytest.mark.usefixtures("keep_generators")
@pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning")
def test_a_weights_file_takes_names_from_a_file(unhot: Run, pictures: Path, tmp_path: Path) -> None:
    state = build("lenet5", 10, photo_input(16, 1), {}).state_dict()
    state["head.bias"][5] = 100
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "names.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    call = ["forget", tmp_path / "w.safetensors", "--arch", "lenet5", "--image-size", 16, "--method", "mask", "--force"]
    call += [
        "--samples",
        pictures,
        "--class",
        "name 3",
        "--classes",
        tmp_path / "names.json",
        "--out",
        tmp_path / "out",
    ]
    said = unhot(*call, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "0 of 3 samples of 'name 3' are classified as 'name 3', 3 as 'name 5'" in said.err
    assert library.load(tmp_path / "out").forgotten[0].index == 3
    (tmp_path / "names.json").write_text(json.dumps(NAMES[:9]))
    said = unhot(*call, "--out", tmp_path / "no")
    assert said.code == 2
    assert "has 10 outputs, and 9 class names were given (name 0, name 1, " in said.err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "text",
    [
        "ant\nbee\r\ncow\n\n",
        '["ant", "bee", "cow"]',
        '{"1": "bee", "0": "ant", "2": "cow"}',
        '{"id2label": {"0": "ant", "1": "bee", "2": "cow"}, "model_type": "vit"}',
        '{"label2id": {"cow": 2, "ant": 0, "bee": 1}}',
        '{"bee": 1, "ant": 0, "cow": 2}',
    ],
)
def test_forms_of_class_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_names(tmp_path / "names") == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no classes"),
        ("ant\n\ncow\n", "the name of output 1 is ''"),
        ('["ant", 3]', "the name of output 1 is 3"),
        ('{"0": "ant", "2": "cow"}', "does not name every output once: its indices are 0, 2"),
        ('["ant"', "is not valid JSON"),
    ],
)
def test_class_names_of_no_form(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(InputError) as refused:
        read_class_names(tmp_path / "names")
    assert sentence in str(refused.value)


class Beside:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.made = function, args

    def __reduce__(self) -> Any:
        return self.made


def test_what_is_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2)}
    mark = tmp_path / "mark.npy"
    torch.save({"state_dict": state, "x": Beside(np.save, str(mark), 1)}, tmp_path / "library.pt")
    assert read_weights(tmp_path / "library.pt").keys() == state.keys()
    for function in (eval, pickle.loads, Path.touch):
        torch.save({"state_dict": state, "x": Beside(function, str(mark))}, tmp_path / "python.pt")
        with pytest.raises(ModelError, match=r"may run code"):
            read_weights(tmp_path / "python.pt")
    assert not mark.exists()


def test_a_shard_outside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = VIT(tmp_path / "vit").path
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"classifier.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names a file outside its folder"):
        library.load(folder)
