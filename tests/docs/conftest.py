"""What the pages of the documentation start from: pictures of digits in folders, and nets that recognise them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unhot.data.source import Source, load_source
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops
from unhot.runtime.silence import silence

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_folders(digits: Source, root: Path, names: tuple[str, ...]) -> Path:
    """Write the digits as pictures in train/ and test/, with a folder for each digit."""
    for split, images in (("train", digits.train_images), ("test", digits.test_images)):
        pixels = images.pixels(torch.arange(len(images)), digits.input)
        for i, (image, label) in enumerate(zip(pixels, images.y.tolist(), strict=True)):
            folder = root / split / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def digit_folders(digits: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of digits in folders named 0 to 9; read only."""
    return write_folders(digits, tmp_path_factory.mktemp("pictures") / "photos", tuple("0123456789"))


@pytest.fixture(scope="session")
def named_folders(digits: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of digits in folders named zero to nine; read only."""
    return write_folders(digits, tmp_path_factory.mktemp("named") / "photos", NAMES)


def photo_spec(mean: tuple[float, ...], std: tuple[float, ...]) -> InputSpec:
    return InputSpec(height=32, width=32, channels=3, mean=mean, std=std, resize=32)


def fit_head(net: nn.Module, source: Source, spec: InputSpec) -> None:
    """Let a net of random weights recognise images, by ridge regression of their classes from its features."""
    images = source.train_images
    x = images.inputs(torch.arange(0, len(images), 2), spec, torch.device("cpu"))
    y = nn.functional.one_hot(images.y[::2], len(NAMES)).double()
    with torch.no_grad():
        net.train()
        net(x[:256])  # batch normalisation takes its statistics
        net.eval()
        head, found = Classifier.wrap(net, x[:2], input=spec).head_layer, []
        hook = head.register_forward_pre_hook(lambda _, given: found.append(given[0]))
        for batch in x.split(128):
            net(batch)
        hook.remove()
        features = torch.cat(found).double()
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        eye = torch.eye(features.shape[1]) * features.square().mean()
        fitted = 12 * torch.linalg.solve(features.T @ features + eye, features.T @ y)
        head.weight.copy_(fitted[:-1].T)
        head.bias.copy_(fitted[-1])


@pytest.fixture(scope="session")
def elsewhere(named_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of transformers, timm and torchvision that recognise these pictures; read only."""
    root = tmp_path_factory.mktemp("elsewhere")
    photos = load_source(str(named_folders))
    names = list(photos.train_images.class_names)
    of_torchvision = photo_spec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    half = photo_spec((0.5,) * 3, (0.5,) * 3)
    torchvision_ops.prepare()
    with silence(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build("torchvision:resnet18", len(names), None)
        fit_head(net, photos, of_torchvision)
        torch.save(net.state_dict(), root / "resnet18.pt")
        _write_timm(root / "timm-model", photos, half, names)
        _write_transformers(root / "hf-model", photos, half, names)
    return root


def _write_timm(folder: Path, photos: Source, spec: InputSpec, names: list[str]) -> None:
    net = build("timm:test_resnet", len(names), None)
    fit_head(net, photos, spec)
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    seen = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    config = {"architecture": "test_resnet", "num_classes": len(names), "label_names": names, "pretrained_cfg": seen}
    (folder / "config.json").write_text(json.dumps(config))


def _write_transformers(folder: Path, photos: Source, spec: InputSpec, names: list[str]) -> None:
    import transformers

    labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    sizes = {"embedding_size": 32, "hidden_sizes": [32, 128], "depths": [1, 1], "layer_type": "basic"}
    net = transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, **labels))
    fit_head(net, photos, spec)
    net.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
