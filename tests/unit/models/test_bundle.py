from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import skip_init

from unhot.data.source import Source
from unhot.errors import InputError, ModelError, OutputError, UnknownNameError
from unhot.models.arch import build
from unhot.models.bundle import load, read_record, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.head import replace_layer
from unhot.records.forget import ForgetRecord
from unhot.records.model import InputSpec
from unhot.records.train import TrainRecord

X = torch.linspace(-1, 1, 2 * 144).view(2, 1, 12, 12)


def without_bias(model: Classifier) -> Classifier:
    head = skip_init(nn.Linear, 84, 10, bias=False)
    with torch.no_grad():
        head.weight.copy_(model.head_layer.weight)
    replace_layer(model.module, "head", head.eval())
    return model


def original(model: Classifier) -> Classifier:
    return model


def cut(how: str) -> Callable[[Classifier], Classifier]:
    return lambda model: cut_classes(model, [model.label("class 7"), model.label(2)], how)


KINDS = {
    "original": original,
    "masked": cut("mask"),
    "excised": cut("excise"),
    "bottleneck": cut("bottleneck"),
    "two bottlenecks": lambda m: (lambda n: cut_classes(n, [n.label(0)], "bottleneck"))(cut("bottleneck")(m)),
    "bias-free": without_bias,
    "bias-free masked": lambda m: cut("mask")(without_bias(m)),
    "bias-free excised": lambda m: cut("excise")(without_bias(m)),
    "excised twice": lambda m: (lambda n: cut_classes(n, [n.label(0)], "excise"))(cut("excise")(m)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_comes_back_whole(lenet: Classifier, tmp_path: Path, kind: str) -> None:
    model = KINDS[kind](lenet.copy())
    save(model, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bundle.json", "model.safetensors"]
    back = load(str(tmp_path / "out"))
    assert replace(back, module=model.module) == model
    assert back.sha256() == model.sha256()
    assert not any(m.training for m in back.module.modules())
    with torch.no_grad():
        assert torch.equal(back.logits(X), model.logits(X))


def test_what_is_no_classifier_is_refused_with_what_is_one(lenet: Classifier, tmp_path: Path) -> None:
    for wrong in (lenet.module, object()):
        with pytest.raises(ModelError, match=r"got \w+\. Of the result of unhot\.forget it is result\.classifier\."):
            save(wrong, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"got object\. Of the result of unhot\.forget it is result\.classifier\."):
        Classifier.wrap(object())  # type: ignore[arg-type]


def test_options_and_input_come_back(tmp_path: Path, spec: Callable[..., InputSpec]) -> None:
    s = spec(8)
    net = build("resnet9", 3, s, {"width": 4}).eval()
    model = replace(Classifier.wrap(net, class_names=["å", "b/c", ""], input=s), arch="resnet9")
    model = replace(model, arch_options={"width": 4})
    save(model, tmp_path / "out")
    back = load(tmp_path / "out")
    assert (back.arch_options, back.input, back.outputs) == ({"width": 4}, s, 3)
    assert [c.name for c in back.classes] == ["å", "b/c", ""]
    assert back.sha256() == model.sha256()


def test_channels_last_weights_are_saved(lenet: Classifier, tmp_path: Path) -> None:
    model = lenet.copy()
    model.module.to(memory_format=torch.channels_last)
    save(model, tmp_path / "out")
    assert load(tmp_path / "out").sha256() == lenet.sha256()


def test_double_weights_come_back(lenet: Classifier, tmp_path: Path) -> None:
    model = lenet.copy()
    model.module.double()
    save(model, tmp_path / "out")
    assert load(tmp_path / "out").sha256() == model.sha256()


def test_saving_leaves_the_model_as_it_was(lenet: Classifier, tmp_path: Path) -> None:
    lenet.module.train()
    before = lenet.sha256()
    save(lenet, tmp_path / "out")
    assert lenet.sha256() == before
    assert lenet.module.training
    shared = load_file(tmp_path / "out" / "model.safetensors")
    assert set(shared) == set(lenet.module.state_dict())


def test_a_bundle_from_before_there_were_graphs(lenet: Classifier, tmp_path: Path) -> None:
    save(lenet, tmp_path / "out")
    file = tmp_path / "out" / "bundle.json"
    content = json.loads(file.read_text())
    assert content.pop("graph_sha256") is None
    file.write_text(json.dumps(content))
    assert load(tmp_path / "out").sha256() == lenet.sha256()


def test_a_folder_that_is_taken_is_left_alone(lenet: Classifier, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    save(lenet, tmp_path / "out")  # an empty one will do
    written = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match=r"exists.*empty.*--out"):
        save(cut("mask")(lenet.copy()), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == written
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*exists.*folder"):
        save(lenet, tmp_path / "file")


def test_what_is_no_bundle(lenet: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.*nowhere.*Check.*path"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pt").touch()
    for path in ("empty", "weights.pt"):
        with pytest.raises(
            ModelError, match=rf"{path} is not a bundle: it needs bundle\.json and model\.safetensors\."
        ):
            load(tmp_path / path)
    for name in ("bundle.json", "model.safetensors"):
        save(lenet, tmp_path / f"without {name}")
        (tmp_path / f"without {name}" / name).unlink()
        with pytest.raises(ModelError, match=r"is not a bundle"):
            load(tmp_path / f"without {name}")


def test_weights_that_were_tampered_with_are_refused(lenet: Classifier, tmp_path: Path) -> None:
    save(lenet, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors.*bundle\.json.*describes"):
        load(tmp_path / "out")
    file.write_bytes(content[:-100])
    with pytest.raises(ModelError, match=r"file.*bundle\.json.*describes"):
        load(tmp_path / "out")


@pytest.fixture
def edited(lenet: Classifier, tmp_path: Path) -> Callable[..., Path]:
    """A bundle whose bundle.json says something else."""

    def edit(**values: Any) -> Path:
        save(lenet, tmp_path / "edited")
        file = tmp_path / "edited" / "bundle.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))
        return tmp_path / "edited"

    return edit


@pytest.mark.parametrize(
    ("values", "kind", "sentence"),
    [
        ({"schema_version": 99}, InputError, r"bundle\.json was written by a newer unhot\. Update unhot to read it\."),
        ({"arch": "lenet6"}, UnknownNameError, r"Unknown model 'lenet6'\. Did you mean 'lenet5'"),
        ({"head": "conv1"}, ModelError, r"The head 'conv1' is a Conv2d\."),
        ({"outputs": 0}, InputError, r"is not a valid BundleInfo: 'outputs'"),
        ({"surprise": 1}, InputError, r"is not a valid BundleInfo: 'surprise'"),
        ({"arch_options": {"width": 3}}, UnknownNameError, r"Unknown option of lenet5: 'width'"),
        ({"arch": "vgg11_bn"}, ModelError, r"does not fit the architecture: \d+ problems:"),
    ],
)
def test_a_description_that_does_not_fit(
    edited: Callable[..., Path], values: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        load(edited(**values))


def test_a_head_that_is_not_there(edited: Callable[..., Path]) -> None:
    with pytest.raises(ModelError):
        load(edited(head="nothing"))


def test_classes_that_are_not_as_many_as_the_outputs(edited: Callable[..., Path]) -> None:
    with pytest.raises(ModelError):
        load(edited(classes=[{"index": 0, "name": "a"}]))


def test_two_classes_of_one_index_are_refused(edited: Callable[..., Path], lenet: Classifier) -> None:
    """To forget class 3 would else cut the output of another."""
    classes = [c.model_dump() for c in lenet.classes]
    classes[7]["index"] = 3
    with pytest.raises(InputError, match=r"the class 3 comes twice"):
        load(edited(classes=classes))


def test_a_version_that_is_no_number(edited: Callable[..., Path]) -> None:
    with pytest.raises(InputError):
        load(edited(schema_version="one"))


def test_weights_that_are_not_finite_are_refused(lenet: Classifier, tmp_path: Path) -> None:
    model = lenet.copy()
    with torch.no_grad():
        model.module.fc1.weight[3, 3] = torch.nan
    save(model, tmp_path / "out")
    with pytest.raises(ModelError, match=r"NaN.*infinite.*fc1\.weight"):
        load(tmp_path / "out")


def test_the_record_of_a_bundle(bundle: Path, trained: tuple[Classifier, TrainRecord], digits: Source) -> None:
    model, record = trained
    assert sorted(p.name for p in bundle.iterdir()) == ["bundle.json", "model.safetensors", "record.json"]
    back = load(bundle)
    assert back.sha256() == model.sha256() == record.weights_sha256
    assert read_record(bundle, TrainRecord) == record
    assert read_record(bundle, ForgetRecord) is None
    assert read_record(bundle.parent, TrainRecord) is None
