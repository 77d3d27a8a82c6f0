"""Bad input: one clear sentence, exit code 2, nothing written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from unhot import files
from unhot.models import weights

Run = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")

FACTORIES = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, image_size=16):
        super().__init__()
        self.fc = nn.Linear(image_size**2, num_classes)

    def forward(self, x):
        return self.shaped(self.fc(x.flatten(1)))

class Probabilities(Net):
    def shaped(self, z):
        return z.softmax(1)

class LogProbabilities(Net):
    def shaped(self, z):
        return z.log_softmax(1)

class Maps(Net):
    def shaped(self, z):
        return z[:, :, None, None]

class NoLinear(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(1, num_classes, 16), nn.Flatten())

def number(num_classes):
    return 3
"""


@pytest.fixture
def refused(unhot: Run, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; return the sentence."""

    def run(*argv: object, out: Path | None = None) -> str:
        out = out or tmp_path / "out"
        before = sorted(tmp_path.rglob("*"))
        said = unhot(*argv, "--out", out)
        assert said.code == 2, said
        assert said.out == ""
        sentences = [line for line in said.err.splitlines() if line.startswith("Error: ")]
        assert len(sentences) == 1
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "bad_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def forget(model: object, *more: object) -> list[object]:
    return ["forget", model, "--class", 3, "--samples", "digits", *more]


FORGET = ["forget", "BASE", "--class", "3", "--samples", "digits"]
AUDIT = ["audit", "--original", "BASE", "--unlearned", "BASE", "--class", "3", "--data", "digits"]
BAD = {
    "class out of range": ["forget", "BASE", "--class", "99", "--samples", "digits"],
    "unknown class": ["forget", "BASE", "--class", "nope", "--samples", "digits"],
    "unknown method": [*FORGET, "--method", "maskk"],
    "unknown option": [*FORGET, "-o", "guardd=1"],
    "option of the wrong type": [*FORGET, "-o", "guard=fast"],
    "option out of range": [*FORGET, "-o", "step_size=2"],
    "option without a value": [*FORGET, "-o", "guard"],
    "no shots": [*FORGET, "--shots", "0"],
    "shots below zero": [*FORGET, "--shots", "-3"],
    "no shots of a folder": ["forget", "BASE", "--class", "3", "--samples", "FOLDERS/nested", "--shots", "0"],
    "shots below zero of a folder": ["forget", "BASE", "--class", "3", "--samples", "FOLDERS/flat", "--shots", "-3"],
    "too many shots": [*FORGET, "--shots", "9999"],
    "no model": ["forget", "TMP/none", "--class", "3", "--samples", "digits"],
    "empty folder": ["forget", "BASE", "--class", "3", "--samples", "TMP/empty"],
    "broken images": ["forget", "BASE", "--class", "3", "--samples", "TMP/broken"],
    "not of the class": ["forget", "BASE", "--class", "3", "--samples", "TMP/other"],
    "all classes": ["forget", "BASE", *(a for c in range(10) for a in ("--class", str(c))), "--samples", "digits"],
    "weights without an architecture": ["forget", "TMP/w.pt", "--class", "3", "--samples", "digits"],
    "a pickle that runs code": ["forget", "TMP/bomb.pt", "--arch", "lenet5", "--class", "3", "--samples", "digits"],
    "NaN weights": ["forget", "TMP/nan.pt", "--arch", "lenet5", "--class", "3", "--samples", "digits"],
    "unknown data set": ["train", "--dataset", "digitz", "--arch", "lenet5"],
    "unknown architecture": ["train", "--dataset", "digits", "--arch", "lenet"],
    "data set that is not there": ["train", "--dataset", "mnist", "--arch", "lenet5", "--data-dir", "TMP/empty"],
    "malformed requirement": [*AUDIT, "--require", "forget_accuracy"],
    "unknown requirement": [*AUDIT, "--require", "forgot_accuracy<=0.1"],
    "unknown device": [*FORGET, "--device", "tpu9"],
    "a device that computes nothing": [*FORGET, "--device", "meta"],
}


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("what", BAD)
def test_requests_that_cannot_be_met(
    refused, bundle: Path, folders: Path, noise: Image.Image, tmp_path: Path, what: str
) -> None:
    for folder in ("empty", "broken", "other"):
        (tmp_path / folder).mkdir()
    noise.save(tmp_path / "other" / "a.png")
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    (tmp_path / "broken" / "b.png").write_bytes((tmp_path / "other" / "a.png").read_bytes()[:90])
    weights = load_file(bundle / "model.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save({k: v * float("nan") for k, v in weights.items()}, tmp_path / "nan.pt")
    torch.save({"w": Bomb()}, tmp_path / "bomb.pt")
    places = {"BASE": bundle, "TMP": tmp_path, "FOLDERS": folders}
    said = refused(*(reduce(lambda text, at: text.replace(at[0], str(at[1])), places.items(), a) for a in BAD[what]))
    if what == "broken images":
        assert "a.png, b.png" in said
    if "shots" in what and what != "too many shots":
        assert f"Asked for {BAD[what][-1]} images a class. Ask for a whole number of at least 1." in said


@pytest.mark.usefixtures("factories", "keep_generators")
@pytest.mark.parametrize(
    ("arch", "sentence"),
    [
        ("Probabilities", "they are probabilities. Leave out the final softmax"),
        ("LogProbabilities", "log-probabilities. Leave out the final log_softmax"),
        ("Maps", r"it returns logits of shape (2, 10, 1, 1), not (B, K)"),
    ],
)
def test_what_a_model_may_not_return(refused, tmp_path: Path, arch: str, sentence: str) -> None:
    save_file({"fc.weight": torch.rand(10, 256), "fc.bias": torch.zeros(10)}, tmp_path / "w.safetensors")
    assert sentence in refused(*forget(tmp_path / "w.safetensors", "--arch", f"bad_factories:{arch}"))


@pytest.mark.usefixtures("factories", "keep_generators")
@pytest.mark.parametrize(
    ("arch", "sentence"),
    [
        ("bad_factories:NoLinear", "it has no nn.Linear"),
        ("bad_factories:number", "returned int. The factory must return a torch.nn.Module"),
        ("bad_factories:missing", "Module 'bad_factories' has no 'missing'"),
        ("no_such_module_here:net", "Unknown architecture"),
        ("torchvision:resnet81", "Did you mean 'resnet"),
    ],
)
def test_architectures_that_cannot_be_used(refused, tmp_path: Path, arch: str, sentence: str) -> None:
    save_file({"fc.weight": torch.rand(10, 256), "fc.bias": torch.zeros(10)}, tmp_path / "w.safetensors")
    assert sentence in refused(*forget(tmp_path / "w.safetensors", "--arch", arch))


def test_truncated_photos_are_all_named(refused, bundle: Path, noise: Image.Image, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        noise.save(photos / name)
    for name in ("a.jpg", "c.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:-400])
    said = refused("forget", bundle, "--class", 3, "--samples", photos)
    assert "photos: 2 of 3 images cannot be used: a.jpg, c.jpg." in said


@pytest.mark.parametrize("what", ["flat", "mixed", "missing"])
def test_sample_folders_that_cannot_be_used(refused, bundle: Path, folders: Path, tmp_path: Path, what: str) -> None:
    place = tmp_path / "samples"
    if what == "flat":
        said = refused("forget", bundle, "--class", 3, "--class", 5, "--samples", folders / "flat")
        assert "is a flat folder, and 2 classes are named" in said
    elif what == "mixed":
        shutil.copytree(folders / "nested", place)
        shutil.copy(next((folders / "flat").iterdir()), place / "x.png")
        assert "holds both images and folders" in refused("forget", bundle, "--class", 3, "--samples", place)
    else:
        said = refused("forget", bundle, "--class", 7, "--samples", folders / "nested")
        assert "Unknown class of nested: '7'" in said


@pytest.mark.parametrize("taken", ["file", "full", "link"])
def test_outputs_that_are_taken(refused, bundle: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    for call in (forget(bundle), ["train", "--dataset", "digits", "--arch", "lenet5"], ["demo"]):
        assert "Choose another --out" in refused(*call, out=tmp_path / taken)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["weights", "info", "newer", "gone", "classes"])
def test_bundles_that_are_damaged(refused, bundle: Path, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "b"
    shutil.copytree(bundle, place)
    info = json.loads((place / "bundle.json").read_text())
    if damage == "weights":
        content = bytearray((place / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (place / "model.safetensors").write_bytes(bytes(content))
    elif damage == "gone":
        (place / "model.safetensors").unlink()
    else:
        change = {"newer": {"schema_version": 99}, "info": {"outputs": "many"}, "classes": {"classes": []}}[damage]
        (place / "bundle.json").write_text(json.dumps(info | change))
    said = refused(*forget(place))
    expected = {
        "weights": "is not the file that bundle.json describes",
        "info": "is not a valid BundleInfo: 'outputs'",
        "newer": "was written by a newer unhot",
        "gone": "is not a bundle: it needs",
        "classes": "the head has 10 outputs, and bundle.json names 0 classes",
    }
    assert expected[damage] in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--epochs", 0], "'epochs'"),
        (["--lr", -1], "'lr'"),
        (["--batch-size", 0], "'batch_size'"),
        (["--width", 8], "option of lenet5"),
        (["-o", "widht=3"], "option of lenet5"),
        (["-o", "channels=grey"], "cannot be built"),
        (["-o", "=3"], "Expected key=value"),
        (["-o", "a=1", "-o", "a=2"], "given twice"),
        (["--exclude-class", "nope"], "Unknown class 'nope'"),
        ([a for c in range(9) for a in ("--exclude-class", c)], "At least two classes must be left"),
        (["--lr", 1e9, "--epochs", 2], "Training diverged in epoch 1"),
        (["--precision", "fp8"], "--precision"),
    ],
)
def test_training_that_cannot_be_done(refused, more: list[object], sentence: str) -> None:
    assert sentence in refused("train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1, *more)


@pytest.mark.parametrize(
    "call", [["nope"], ["forget"], ["list", "nope"], ["forget", "x", "--seed", "x"], ["--nope"], []]
)
def test_usage(unhot: Run, call: list[str]) -> None:
    said = unhot(*call)
    assert said.code == 2
    assert "Traceback" not in said.err


def full_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        if kind == "weights":
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((weights, "save_file") if kind == "weights" else (files, "_fsync")), fail)


@pytest.mark.parametrize("kind", ["weights", "anything"])
def test_a_full_disk(refused, bundle: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    full_of(kind, monkeypatch)
    assert "The disk is full" in refused(*forget(bundle, "--method", "mask"))


def test_a_disk_that_fills_while_training(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_of("anything", monkeypatch)
    said = unhot("train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 2, "--out", tmp_path / "out")
    assert (said.code, "The disk is full" in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_requirement_that_is_no_number(refused, bundle: Path) -> None:
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--class", 3, "--data", "digits", "--quick"]
    assert "0.1.2" in refused(*call, "--require", "forget_accuracy<=0.1.2")


@pytest.mark.parametrize(
    "require",
    ["verdict>=good", "verdict.feature>=retrained", "verdict.outputs", "verdict<=retrained", "verdict>=at the level"],
)
def test_a_requirement_of_a_verdict_that_is_none(refused, bundle: Path, require: str) -> None:
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--class", 3, "--data", "digits", "--quick"]
    assert refused(*call, "--require", require) == (
        f"Error: Expected --require 'verdict>=LEVEL' or 'verdict.HOLDER>=LEVEL', got {require!r}. "
        "LEVEL is hidden, short, retrained, beyond; HOLDER is outputs, features, weights.\n"
    )


@pytest.mark.parametrize("name", ["relearn_steps", "recovery_all_images", "inversion_recognised"])
def test_what_a_quick_audit_leaves_out_cannot_be_required(refused, bundle: Path, name: str) -> None:
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--class", 3, "--data", "digits", "--quick"]
    said = refused(*call, "--require", f"{name}<=0.5")
    assert said == f"Error: --quick leaves {name} out, so it cannot be required. Leave --quick out.\n"


def test_a_refused_training_makes_no_folders(refused, tmp_path: Path) -> None:
    assert "nope" in refused("train", "--dataset", "digits", "--arch", "nope", out=tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("command", ["train", "forget"])
def test_an_output_inside_a_file(refused, bundle: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    call = (
        forget(bundle) if command == "forget" else ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1]
    )
    assert "is not a folder" in refused(*call, out=tmp_path / "file" / "x")


@pytest.mark.parametrize("size", [-5, 0, 4])
def test_an_image_size_that_cannot_be(refused, size: int) -> None:
    said = refused("train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1, "--image-size", size)
    assert "size" in said


def test_a_head_that_is_no_linear_layer(refused, bundle: Path) -> None:
    assert "conv1" in refused(*forget(bundle, "--head", "conv1"))


@pytest.mark.usefixtures("factories", "keep_generators")
def test_an_audit_of_probabilities(refused, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"fc.weight": torch.rand(10, 256), "fc.bias": torch.zeros(10)}, file)
    call = ["audit", "--original", file, "--unlearned", file, "--arch", "bad_factories:Probabilities"]
    assert "probabilities" in refused(*call, "--class", 3, "--data", "digits", "--quick")


def test_models_of_other_sizes_can_be_audited(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 1, "--image-size", 20]
    assert unhot(*call, "--out", tmp_path / "b").code == 0
    call = ["audit", "--original", bundle, "--unlearned", bundle, "--retrained", tmp_path / "b", "--class", 3]
    assert unhot(*call, "--data", "digits", "--quick", "--out", tmp_path / "a").code == 0


@pytest.mark.usefixtures("keep_generators")
def test_weights_of_torchvision_for_grey_data(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    from unhot.models.arch import build

    net = build("torchvision:resnet18", 10, None)
    with torch.no_grad():
        net.fc.bias[3] = 50
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    call = forget(tmp_path / "w.safetensors", "--arch", "torchvision:resnet18", "--shots", 4, "--method", "mask")
    assert unhot(*call, "--out", tmp_path / "u").code == 0
    assert load_file(bundle / "model.safetensors")
