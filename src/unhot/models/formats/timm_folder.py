"""Folders of timm's hub: ``config.json`` with an architecture, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
from torch import nn

from unhot.errors import ModelError, first_line, shortened
from unhot.models import arch
from unhot.models.formats.preprocessing import of_timm
from unhot.records.model import InputSpec
from unhot.runtime import own_generators, torchvision_ops

# arguments of timm.create_model that would fetch or read other weights, or have the net built for another use
UNUSED = (
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes"),
    *("exportable", "scriptable", "no_jit", "features_only", "out_indices"),
)


def is_of_timm(config: Mapping[str, JsonValue]) -> bool:
    """Return whether the content of a ``config.json`` is that of a model of timm."""
    return "architecture" in config


def architecture(config: Mapping[str, JsonValue], where: str) -> tuple[str, dict[str, JsonValue]]:
    """Return the name of an architecture, as :func:`unhot.models.arch.build` takes it, and its keyword arguments.

    Raises:
        InputError: timm is not installed, or has no such architecture.
        ModelError: The arguments are none of a net.
    """
    given = config.get("model_args") or {}
    if not isinstance(given, dict):
        raise ModelError(f"{where}: model_args in config.json is not an object. Save the model again.")
    options = {k: v for k, v in given.items() if k != "num_classes"}  # which the weights determine
    if odd := [o for o in options if o in UNUSED]:
        raise ModelError(f"{where}: model_args in config.json has {shortened(odd)}, which is not used. Remove it.")
    name = f"timm:{config['architecture']}"
    arch.find_builder(name)
    return name, options


def build(config: Mapping[str, JsonValue], outputs: int) -> nn.Module:
    """Build the untrained net of a ``config.json`` with this many outputs, in eval mode."""
    name, options = architecture(config, "config.json")
    with own_generators():
        return arch.build(name, outputs, None, options).eval()


def input_of(config: Mapping[str, JsonValue], where: str) -> InputSpec:
    """Return the input that a ``config.json`` describes.

    Raises:
        ModelError: It has invalid values.
    """
    torchvision_ops.prepare()
    from timm.data import resolve_data_config

    own: Any = config.get("pretrained_cfg", config)  # older files have no pretrained_cfg
    args: Any = config.get("model_args") or {}
    size = args.get("img_size")
    asked = {"img_size": size} if isinstance(size, int) else {}
    try:
        return of_timm(resolve_data_config(asked, pretrained_cfg=own))
    except Exception as error:  # timm takes the values as they are
        raise ModelError(f"{where}: config.json has an invalid pretrained_cfg ({first_line(error)}).") from error


def class_names(config: Mapping[str, JsonValue]) -> tuple[str, ...] | None:
    """Return the names of the classes; None if there are none."""
    own = config.get("pretrained_cfg")
    given = config.get("label_names") or (own.get("label_names") if isinstance(own, dict) else None)
    return tuple(map(str, given)) if isinstance(given, list) else None
