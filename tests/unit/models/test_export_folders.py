"""Folders of transformers and timm go out as they came in, and their libraries load them."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unhot
from unhot.errors import ModelError, ModelWarning
from unhot.models.bundle import load, save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes
from unhot.models.formats.exports import timm_hub
from unhot.models.formats.weights import WeightsFile, load_weights
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence

torchvision_ops.prepare()
with silence():
    import timm
    import transformers
    from timm.models import save_for_hf

NAMES = ["nil", "one", "two", "three", "four"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL = {"image_size": 16, "patch_size": 4}
HF = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, **SMALL, **LABELS)),
    "deit, two heads": lambda: transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**VIT, **SMALL, **LABELS)
    ),
    "resnet": lambda: transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS)
    ),
    "swin": lambda: transformers.SwinForImageClassification(
        transformers.SwinConfig(**SMALL, embed_dim=8, depths=[1], num_heads=[2], window_size=2, **LABELS)
    ),
}
TIMM = {
    "test_resnet": {},
    "test_vit": {"img_size": 32},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "embed_dim": 16, "num_heads": 2, "depth": 1},
}
X = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(1))

pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")


def stirred(net: nn.Module) -> Any:
    """Make a net's answers vary: untrained heads are almost zero."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def hf_folder(kind: str, folder: Path) -> Path:
    with silence():
        stirred(HF[kind]()).save_pretrained(folder)
        transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@torch.no_grad()
def cut(model: Classifier, how: str) -> tuple[Classifier, int]:
    """Cut the class that is answered most often on random inputs, so that it would be seen if it came back."""
    x = X[:, :, : model.input.height, : model.input.width]
    favourite = int(model.logits(x).argmax(1).bincount().argmax())
    return cut_classes(model.copy(), [model.classes[favourite]], how), favourite


def through_a_bundle(model: Classifier, folder: Path) -> Classifier:
    save(model, folder)
    return load(folder)


@pytest.mark.parametrize("how", ["mask", "excise"])
@pytest.mark.parametrize("kind", HF)
@torch.no_grad()
def test_a_folder_of_transformers_drops_in(tmp_path: Path, kind: str, how: str) -> None:
    before = hf_folder(kind, tmp_path / "in")
    model, gone = cut(load(before), how)
    record = unhot.export(through_a_bundle(model, tmp_path / "bundle"), "hf", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in before.iterdir()} == set(record.files)
    with silence():
        net = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
        old = transformers.AutoModelForImageClassification.from_pretrained(before).eval()
        transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    x = X[:, :, :16, :16]
    logits = net(pixel_values=x).logits
    assert torch.allclose(logits, model.logits(x), atol=1e-5)
    assert net.state_dict().keys() == old.state_dict().keys()
    named = [net.config.id2label[i] for i in logits.argmax(1).tolist()]
    assert NAMES[gone] not in named
    left = NAMES if how == "mask" else [n for n in NAMES if n != NAMES[gone]]
    assert [net.config.id2label[i] for i in range(len(net.config.id2label))] == left
    assert net.config.label2id == {n: i for i, n in enumerate(left)}
    for name in ("config.json", "preprocessor_config.json"):
        was, now = (json.loads((folder / name).read_text()) for folder in (before, tmp_path / "out"))
        changed = {"id2label", "label2id"} if how == "excise" and name == "config.json" else set()
        assert {k for k in was.keys() | now.keys() if was.get(k) != now.get(k)} == changed


def test_a_folder_in_half_precision_stays_so_and_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    with silence():
        stirred(HF["vit"]()).half().save_pretrained(tmp_path / "in")
        transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "in")
    mask = os.umask(0o027)
    try:
        unhot.export(cut(load(tmp_path / "in"), "mask")[0], "hf", tmp_path / "out")
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out").iterdir()} == {0o640}
    with silence():
        net = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert net.dtype == torch.float16


def test_names_that_the_user_gave_are_in_the_folder(tmp_path: Path) -> None:
    from dataclasses import replace

    model = load(hf_folder("vit", tmp_path / "in"))
    named = tuple(c.model_copy(update={"name": c.name.upper()}) for c in model.classes)
    unhot.export(replace(model, classes=named), "hf", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(i): n.upper() for i, n in enumerate(NAMES)}


@pytest.mark.parametrize("how", ["mask", "excise"])
@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_weights_of_timm_become_a_folder_that_timm_loads(tmp_path: Path, name: str, how: str) -> None:
    options = TIMM[name]
    net = stirred(timm.create_model(name, num_classes=5, **options))
    torch.save(net.state_dict(), tmp_path / "w.pt")
    size = options.get("img_size", 32)
    spec = InputSpec(height=size, width=size, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3, resize=40)
    how_read = WeightsFile(arch=f"timm:{name}", input=spec, arch_options=dict(options), data_names=tuple(NAMES))
    original = load_weights(tmp_path / "w.pt", how_read).taking(spec)
    model, gone = cut(original, how)
    unhot.export(through_a_bundle(model, tmp_path / "bundle"), "timm", tmp_path / "out")
    back = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert torch.allclose(back(X), model.logits(X), atol=1e-4)
    left = NAMES if how == "mask" else [n for n in NAMES if n != NAMES[gone]]
    assert NAMES[gone] not in [left[i] for i in back(X).argmax(1).tolist()]
    config = timm.data.resolve_model_data_config(back)
    found = [list(config[k]) for k in ("mean", "std", "input_size")]
    assert found == [[0.5] * 3, [0.25] * 3, [3, size, size]]
    assert round(size / config["crop_pct"]) == 40
    again = load(tmp_path / "out")  # by unhot, as a folder of timm
    assert [c.name for c in again.classes] == left
    assert torch.allclose(again.logits(X), model.logits(X), atol=1e-4)


@pytest.mark.parametrize("how", ["mask", "excise"])
@torch.no_grad()
def test_a_folder_of_timm_drops_in(tmp_path: Path, how: str) -> None:
    net = stirred(timm.create_model("test_vit", num_classes=5, img_size=32))
    with silence():
        save_for_hf(net, tmp_path / "in", model_config={"label_names": NAMES}, model_args={"img_size": 32})
    model, gone = cut(load(tmp_path / "in"), how)
    unhot.export(through_a_bundle(model, tmp_path / "bundle"), "timm", tmp_path / "out")
    back = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert torch.allclose(back(X), model.logits(X), atol=1e-5)
    was, now = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("in", "out"))
    left = NAMES if how == "mask" else [n for n in NAMES if n != NAMES[gone]]
    assert now["label_names"] == left
    changed = {"num_classes", "label_names", "pretrained_cfg", "model_args"} if how == "excise" else set()
    assert {k for k in was.keys() | now.keys() if was.get(k) != now.get(k)} == changed
    assert now["pretrained_cfg"]["num_classes"] == now["model_args"]["num_classes"] == len(left)


def test_names_that_wrappers_put_before_are_said_or_kept(tmp_path: Path) -> None:
    net = stirred(timm.create_model("test_resnet", num_classes=5))
    wrapped = {f"model.{n}": t for n, t in net.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "w.ckpt")
    spec = InputSpec(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    how = WeightsFile(arch="timm:test_resnet", input=spec, arch_options={})
    with pytest.warns(ModelWarning, match="begin with .model."):
        original = load_weights(tmp_path / "w.ckpt", how)
    model = through_a_bundle(cut(original, "mask")[0], tmp_path / "bundle")
    plain = unhot.export(model, "state_dict", tmp_path / "plain.pt")
    kept = unhot.export(model, "state_dict", tmp_path / "kept.pt", keep_keys=True)
    assert (plain.stripped, kept.stripped) == ("model.", "")
    assert torch.load(tmp_path / "plain.pt", weights_only=True).keys() == net.state_dict().keys()
    assert torch.load(tmp_path / "kept.pt", weights_only=True).keys() == wrapped.keys()


@torch.no_grad()
def test_two_heads_are_two_heads_in_a_state_dict(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    net = stirred(timm.create_model(name, num_classes=5, **TIMM[name]))
    model = Classifier.wrap(net, X[:2])
    model, gone = cut(model.taking(InputSpec(height=32, width=32, channels=3, mean=(0,) * 3, std=(1,) * 3)), "mask")
    unhot.export(through_a_bundle(model, tmp_path / "bundle"), "state_dict", tmp_path / "m.pt")
    other = timm.create_model(name, num_classes=5, **TIMM[name]).eval()
    other.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.allclose(other(X), model.logits(X), atol=1e-4)
    assert gone not in other(X).argmax(1).tolist()


def test_what_came_from_elsewhere_is_no_such_folder(lenet: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did not come from a folder of transformers"):
        unhot.export(lenet, "hf", tmp_path / "out")
    with pytest.raises(ModelError, match="is no net of timm by name"):
        unhot.export(lenet, "timm", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "resize"), [(32, 40), (96, 118), (192, 225), (192, 236), (380, 463), (224, 224)])
def test_timm_resizes_as_the_bundle_does(size: int, resize: int) -> None:
    spec = InputSpec(height=size, width=size, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3, resize=resize)
    assert math.floor(size / timm_hub._share_of(spec)) == resize
    with pytest.raises(ModelError, match="stretched to 40 by 41 pixels and then cropped"):
        timm_hub._share_of(spec.model_copy(update={"resize": (40, 41)}))
