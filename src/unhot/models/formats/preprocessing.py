"""The preprocessing of pretrained models: configurations of timm, torchvision and Hugging Face as an InputSpec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError
from torch import Tensor

from unhot.errors import ModelError, ModelWarning, invalid_values, raise_all, warn
from unhot.reading import parse_json, read_text
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops

PROCESSOR = "preprocessor_config.json"
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by their numbers in Pillow
# processors of transformers that read a size of one number as the length of the shorter side; others make a square
BY_SHORTER_SIDE = (
    *("Bit", "CLIP", "ChineseCLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer"),
    *("TextNet", "VideoMAE", "Vilt"),
)
UNSUPPORTED = ("do_pad", "do_flip_channel_order", "rescale_offset", "do_grayscale", "do_thumbnail")


def own_input(arch: str, options: Mapping[str, JsonValue], path: Path, state: Mapping[str, Tensor]) -> InputSpec | None:
    """Return the input of a pretrained model; None if it is not known.

    A file ``preprocessor_config.json`` beside the weights takes precedence over the configuration that the library of
    the architecture has for its own weights.

    Args:
        arch: Name of the architecture; see :func:`unhot.models.arch.build`.
        options: Its keyword arguments.
        path: The file of weights.
        state: The weights, which show whether the net reads grey or colour.

    Raises:
        ModelError: The file is damaged, or asks for something that is not supported.
    """
    family, _, name = arch.partition(":")
    beside = path.with_name(PROCESSOR)
    if beside.is_file():
        found: InputSpec | None = of_processor(parse_json(read_text(beside), str(beside)), str(beside))
    elif family == "timm":
        found = _of_timm(name, options)
    else:
        found = _of_torchvision(name) if family == "torchvision" else None
    if found is None or found.channels == 1 or not reads_grey(state):
        return found
    grey = {key: (sum(values) / len(values),) for key, values in (("mean", found.mean), ("std", found.std))}
    return found.model_copy(update={"channels": 1, **grey})


def reads_grey(state: Mapping[str, Tensor]) -> bool:
    """Return whether the weights have convolutions, none of which reads three channels."""
    channels = {w.shape[1] for w in state.values() if w.ndim == 4}
    return bool(channels) and 3 not in channels


def of_timm(config: Mapping[str, Any]) -> InputSpec:
    """Convert a result of ``timm.data.resolve_data_config``."""
    _, height, width = config["input_size"]
    exact = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    square = height == width and config["crop_mode"] == "center"
    if not square and config["crop_mode"] != "squash":
        warn(
            f"timm resizes for this model by {config['crop_mode']!r} to {height} by {width}, which unhot does not: it "
            f"stretches pictures to {exact[0]} by {exact[1]}. To resize them otherwise, give --resize.",
            ModelWarning,
        )
    return InputSpec(
        height=height,
        width=width,
        channels=3,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=exact[0] if square else exact,
        interpolation=config["interpolation"] if config["interpolation"] in FILTERS else "bicubic",
    )


def of_processor(config: JsonValue, where: str) -> InputSpec:
    """Convert the configuration of an image processor of Hugging Face, ``preprocessor_config.json``.

    Args:
        config: Content of the file.
        where: Name of the file in error messages.

    Raises:
        ModelError: It is something else, or asks for something that is not supported.
    """
    if not isinstance(config, dict):
        raise ModelError(f"{where} is not the configuration of an image processor.")
    raise_all(ModelError, where, [f"{key} is not supported." for key in UNSUPPORTED if config.get(key)])
    try:
        height, width, resize = _sizes(config)
        scale = float(str(config.get("rescale_factor", 1 / 255))) if config.get("do_rescale", True) else 1.0
        normalised = config.get("do_normalize", True)
        mean, std = (
            _channels(config[k]) if normalised else [v] * 3 for k, v in (("image_mean", 0.0), ("image_std", 1.0))
        )
        if normalised and config.get("include_top"):  # of EfficientNet, which divides by the deviation twice
            std = [v * v for v in std]
        return InputSpec.model_validate(
            {"height": height, "width": width, "channels": len(mean), "resize": resize}
            # its pixels are 255 * scale times ours, which are 0..1
            | {"mean": [v / (255 * scale) for v in mean], "std": [v / (255 * scale) for v in std]}
            | {"interpolation": FILTERS[int(str(config.get("resample", 2)))]}
        )
    except ValidationError as error:
        raise ModelError(f"{where} has invalid values: {invalid_values(error)[0]}.") from error
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise ModelError(
            f"{where} lacks what is needed, or has it in another form ({type(error).__name__}: {error}). Remove it, "
            "and describe the model's input with --image-size, --resize, --mean and --std."
        ) from error


def _sizes(config: Mapping[str, Any]) -> tuple[int, int, int | tuple[int, int] | None]:
    """Return height and width of the input, and the size to which pictures are resized before."""
    size, crop = config.get("size"), config.get("crop_size")
    cropped = config.get("do_center_crop", crop is not None) and crop is not None
    if not config.get("do_resize", True):
        raise ValueError("do_resize is false")
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type")))
    if isinstance(size, int) and kind.startswith(BY_SHORTER_SIDE):
        size = {"shortest_edge": size}
    shorter = size.get("shortest_edge") if isinstance(size, dict) else None
    if shorter is not None and "crop_pct" in config and not cropped:  # of ConvNeXT
        small = shorter < 384 and config["crop_pct"] is not None
        return shorter, shorter, int(shorter / config["crop_pct"]) if small else (shorter, shorter)
    if shorter is not None and kind.startswith("Levit"):
        shorter = int(256 / 224 * shorter)
    if cropped and shorter is not None and config.get("crop_pct") is not None:  # of PoolFormer
        shorter = int(shorter / config["crop_pct"])
    resize = shorter if shorter is not None else _pair(size)
    if cropped:
        return *_pair(crop), resize
    if isinstance(resize, int):
        raise ValueError("pictures keep their aspect ratio and are not cropped")
    return *resize, resize


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _channels(values: Any) -> list[float]:
    return [float(v) for v in values]


def _of_timm(name: str, options: Mapping[str, JsonValue]) -> InputSpec:
    torchvision_ops.prepare()
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name)
    size = options.get("img_size")
    args = {"img_size": size} if isinstance(size, int) else {}
    return of_timm(resolve_data_config(args, pretrained_cfg={} if known is None else known.to_dict()))


def _of_torchvision(name: str) -> InputSpec | None:
    torchvision_ops.prepare()
    from torchvision import models as tv

    weights = getattr(tv.get_model_weights(name), "DEFAULT", None)
    if weights is None:
        return None
    made = weights.transforms()
    (size,), (resize,) = made.crop_size, made.resize_size
    mean, std, filter_name = tuple(made.mean), tuple(made.std), made.interpolation.value
    return InputSpec(height=size, width=size, channels=3, mean=mean, std=std, resize=resize, interpolation=filter_name)
