from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unhot.data.decoding import decode
from unhot.data.images import prepare
from unhot.data.preprocessing import Preprocessing
from unhot.errors import ModelError, ModelWarning
from unhot.models.arch import build
from unhot.models.bundle import load, save
from unhot.models.formats.preprocessing import of_processor, of_timm
from unhot.models.formats.weights import WeightsFile, load_weights
from unhot.records.model import InputSpec
from unhot.report.inputs import input_text
from unhot.runtime import torchvision_ops


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (300, 420, 3), dtype=np.uint8))


def inputs(photo: Image.Image, spec: InputSpec) -> torch.Tensor:
    return prepare(decode(photo, spec)[None], spec)[0]


def loaded(tmp_path: Path, arch: str, **more: Any) -> InputSpec:
    options = more.pop("arch_options", {})
    known = InputSpec(height=32, width=32, channels=3, mean=(0.4,) * 3, std=(0.2,) * 3)  # of a data set
    with torch.random.fork_rng(devices=[]):
        save_file(build(arch, 4, None, options).state_dict(), tmp_path / "w.safetensors")
    how = WeightsFile(arch=arch, input=known, arch_options=options, **more)
    found = load_weights(tmp_path / "w.safetensors", how).input
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "test_convnext"])
def test_timm_nets_take_images_as_timm_says(tmp_path: Path, photo: Image.Image, name: str) -> None:
    torchvision_ops.prepare()
    timm = pytest.importorskip("timm")
    from timm.data import create_transform, resolve_data_config

    spec = loaded(tmp_path, f"timm:{name}")
    with torch.random.fork_rng(devices=[]):
        expected = create_transform(**resolve_data_config({}, model=timm.create_model(name)))(photo)
    torch.testing.assert_close(inputs(photo, spec), expected)


def test_timm_nets_of_another_size_or_of_grey(tmp_path: Path) -> None:
    torchvision_ops.prepare()
    pytest.importorskip("timm")
    small = loaded(tmp_path, "timm:vit_tiny_patch16_224", arch_options={"img_size": 96})
    assert (small.shape, small.resize) == ((3, 96, 96), 106)  # 96 / 0.9
    grey = loaded(tmp_path, "timm:resnet18", arch_options={"in_chans": 1})
    assert (grey.shape, grey.resize) == ((1, 224, 224), 235)
    assert grey.mean == pytest.approx((0.449,), abs=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "efficientnet_b0"])
def test_torchvision_nets_take_images_as_their_weights_say(photo: Image.Image, name: str, tmp_path: Path) -> None:
    torchvision_ops.prepare()
    from torchvision import models as tv

    from unhot.models.formats.preprocessing import own_input

    spec = own_input(f"torchvision:{name}", {}, tmp_path / "w.pt", {})
    assert spec is not None
    torch.testing.assert_close(inputs(photo, spec), tv.get_model_weights(name).DEFAULT.transforms()(photo))


def test_own_nets_take_images_as_the_data_set_says(tmp_path: Path) -> None:
    assert loaded(tmp_path, "resnet9").shape == (3, 32, 32)


def test_the_user_counts_most_and_the_bundle_keeps_it(tmp_path: Path) -> None:
    wanted = Preprocessing(size=64, resize=80, mean=(0.5,), std=(0.25,), interpolation="lanczos")
    spec = loaded(tmp_path, "torchvision:resnet18", preprocessing=wanted)
    assert (spec.shape, spec.resize, spec.interpolation) == ((3, 64, 64), 80, "lanczos")
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.25,) * 3)
    how = WeightsFile(arch="torchvision:resnet18", input=None, arch_options={}, preprocessing=wanted)
    model = load_weights(tmp_path / "w.safetensors", how)
    save(model, tmp_path / "bundle")
    assert load(tmp_path / "bundle").input == spec


def test_a_bundle_that_says_nothing_of_resizing_squashes(tmp_path: Path) -> None:
    spec = loaded(tmp_path, "resnet9")
    model = load_weights(tmp_path / "w.safetensors", WeightsFile(arch="resnet9", input=spec, arch_options={}))
    save(model, tmp_path / "bundle")
    info = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    del info["input"]["resize"], info["input"]["interpolation"]
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(info))
    old = load(tmp_path / "bundle").input
    assert old is not None
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8))
    expected = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(decode(picture, old).numpy(), expected)


def test_timm_padding_is_said() -> None:
    config = {"input_size": (3, 64, 48), "crop_pct": 1.0, "crop_mode": "border", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.warns(ModelWarning, match="by 'border' to 64 by 48"):
        assert of_timm(config | {"interpolation": "bilinear"}).resize == (64, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_timm(config | {"crop_mode": "squash", "interpolation": "bicubic"}).resize == (64, 48)


STATISTICS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
PROCESSORS = [
    ({"size": {"height": 48, "width": 40}, "resample": 3}, (48, 40), (48, 40), "bicubic"),
    ({"size": 48}, (48, 48), (48, 48), "bilinear"),
    ({"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}, "resample": 1}, (48, 48), 56, "lanczos"),
    ({"size": {"shortest_edge": 56}, "crop_size": 48, "do_center_crop": True}, (48, 48), 56, "bilinear"),
    ({"size": 56, "crop_size": 48, "image_processor_type": "CLIPImageProcessorFast"}, (48, 48), 56, "bilinear"),
    (
        {"size": 224, "crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor"},
        (224, 224),
        256,
        "bilinear",
    ),
    ({"size": 48, "feature_extractor_type": "ViTFeatureExtractor"}, (48, 48), (48, 48), "bilinear"),
    ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, (224, 224), 256, "bicubic"),
    ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), (384, 384), "bilinear"),
    (
        {"size": {"shortest_edge": 90}, "crop_size": 90, "do_center_crop": True, "crop_pct": 0.9},
        (90, 90),
        100,
        "bilinear",
    ),
]


@pytest.mark.parametrize(("config", "shape", "resize", "interpolation"), PROCESSORS)
def test_processors_of_hugging_face(config: dict, shape: tuple, resize: Any, interpolation: str) -> None:
    spec = of_processor(config | STATISTICS, "p.json")
    assert ((spec.height, spec.width), spec.resize, spec.interpolation) == (shape, resize, interpolation)
    assert spec.mean == pytest.approx((0.5, 0.4, 0.3))
    assert spec.std == pytest.approx((0.1, 0.2, 0.3))


SCALES = [{"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"do_normalize": False}, {"include_top": True}]


@pytest.mark.parametrize("scale", SCALES)
def test_rescaling_is_folded_into_mean_and_deviation(scale: dict[str, Any], photo: Image.Image) -> None:
    config: dict[str, Any] = {"size": {"height": 20, "width": 20}} | STATISTICS | scale
    pixels = np.asarray(photo.resize((20, 20), Image.Resampling.BILINEAR)).astype(np.float64)
    if config.get("do_rescale", True):
        pixels *= config.get("rescale_factor", 1 / 255)
    if config.get("do_normalize", True):
        pixels = (pixels - config["image_mean"]) / config["image_std"]
    if config.get("include_top"):
        pixels /= config["image_std"]
    got = inputs(photo, of_processor(config, "p.json")).permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(got, pixels, rtol=1e-4, atol=1e-4)


def test_a_processor_beside_the_weights_counts_more_than_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 48} | STATISTICS))
    assert loaded(tmp_path, "torchvision:resnet18").shape == (3, 48, 48)


@pytest.mark.parametrize(
    "config",
    [
        *([], None, {}, {"size": 48}, {"size": -1} | STATISTICS, {"size": {"longest_edge": 9}} | STATISTICS),
        *({"size": 48, "do_pad": True} | STATISTICS, {"size": 48, "do_flip_channel_order": True} | STATISTICS),
        *({"size": 48, "do_resize": False} | STATISTICS, {"size": {"shortest_edge": 48}} | STATISTICS),
        *({"size": 48, "resample": 9} | STATISTICS, {"size": 48, "rescale_factor": 0} | STATISTICS),
        *({"size": 48, "image_mean": [1], "image_std": [1, 1]}, {"size": "big"} | STATISTICS),
        *({"size": 48, "image_mean": 5, "image_std": 5}, {"size": 48, "crop_size": 99} | STATISTICS),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(config: Any) -> None:
    with pytest.raises(ModelError, match=r"p\.json"):
        of_processor(config, "p.json")


def test_inputs_are_said_in_words() -> None:
    spec = InputSpec(height=224, width=224, channels=1, mean=(0.5,), std=(0.25,), resize=256, interpolation="bicubic")
    assert input_text(spec) == (
        "resized to 256 pixels on their shorter side, cropped at the centre to 224 by 224 pixels (bicubic), grey, "
        "scaled to 0..1, mean 0.5 subtracted, divided by 0.25"
    )
    assert "resized to 224 by 224 pixels, whatever their shape" in input_text(spec.model_copy(update={"resize": None}))
    assert "resized to 230 by 240 pixels" in input_text(spec.model_copy(update={"resize": (230, 240)}))
