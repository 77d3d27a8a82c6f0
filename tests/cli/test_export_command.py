from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import linear_like, replace_layer

pytestmark = pytest.mark.usefixtures("keep_generators")


@pytest.fixture(scope="module")
def unlearned(original: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unlearned") / "out"
    save(cut_classes(original.copy(), [original.label(3)], "mask"), out)
    return out


def test_a_state_dict_of_a_bundle(unhot, unlearned: Path, tmp_path: Path) -> None:
    said = unhot("export", unlearned, "--to", "state_dict", "--out", tmp_path / "m.safetensors")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"Wrote {tmp_path / 'm.safetensors'} (state_dict, 10 classes).",
        said.out.splitlines()[1],
        "It never answers 3.",
    ]
    assert "Largest difference from the bundle's logits on 8 random images: none (accepted: " in said.out
    assert said.err == ""
    state, wanted = load_file(tmp_path / "m.safetensors"), load(unlearned).module.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[n], wanted[n]) for n in state)


def test_json_has_the_figure(unhot, unlearned: Path, tmp_path: Path) -> None:
    said = unhot("export", unlearned, "--to", "torchscript", "--out", tmp_path / "m.pt", "--json")
    assert said.json["to"] == "torchscript"
    assert said.json["comparison"]["images"] == 8
    assert said.json["comparison"]["largest_difference"] <= said.json["comparison"]["tolerance"]
    assert [c["name"] for c in said.json["masked"]] == ["3"]
    assert list(said.json["files"]) == ["m.pt"]


def test_a_bias_that_was_not_there_is_said(unhot, original: Classifier, tmp_path: Path) -> None:
    plain, out = original.copy(), tmp_path / "out"
    with torch.no_grad():
        head = linear_like(plain.head_layer, bias=False)
        head.weight.copy_(plain.head_layer.weight)
    replace_layer(plain.module, plain.head, head)
    names = set(plain.module.state_dict())
    save(cut_classes(plain, [plain.label(3)], "mask"), out)
    said = unhot("export", out, "--to", "state_dict", "--out", tmp_path / "m.pt")
    assert "head.bias was not among the weights of the original" in said.err
    said = unhot("export", out, "--to", "state_dict", "--out", tmp_path / "k.pt", "--keep-keys")
    assert (said.code, said.err) == (0, "")
    assert torch.load(tmp_path / "k.pt", weights_only=True).keys() == names


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--to", "onx", "--out", "m.onnx"), "Unknown export 'onx'. Did you mean 'onnx'?"),
        (("--to", "onnx", "--out", "m.pt"), "--to onnx writes a file whose name ends in .onnx. Got "),
        (("--to", "pt2", "--out", "m.pt2", "--keep-keys"), "--keep-keys is for formats of weights alone (hf, "),
        (("--to", "pt2", "--out", "there.pt2"), "there.pt2 exists. Choose another --out, or remove it first."),
    ],
)
def test_what_is_refused(unhot, unlearned: Path, tmp_path: Path, argv: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "there.pt2").touch()
    said = unhot("export", unlearned, *(tmp_path / a if a.startswith(("m.", "there")) else a for a in argv))
    assert said.code == 2
    assert sentence in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["there.pt2"]


def test_a_model_that_is_not_there(unhot, tmp_path: Path) -> None:
    said = unhot("export", tmp_path / "none", "--to", "onnx", "--out", tmp_path / "m.onnx")
    assert (said.code, said.err) == (2, f"Error: There is no model at {tmp_path / 'none'}. Check the path.\n")
