"""Folders that ``save_pretrained`` of transformers wrote, read offline and without running code in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from unhot.errors import InputError, ModelError, first_line, raise_all, shortened
from unhot.models.formats.preprocessing import PROCESSOR, of_processor
from unhot.reading import parse_json, read_text
from unhot.records.model import InputSpec, Origin
from unhot.runtime import own_generators, torchvision_ops
from unhot.runtime.silence import silence

CONFIG = "config.json"
FAMILY = "transformers"
LOGITS = "logits"  # of the objects that its nets return
# what may fetch or run code, or leads to weights that cannot be trained
UNUSED = ("auto_map", "attn_implementation", "_attn_implementation", "use_kernels", "use_pretrained_backbone")
MULTI = "multi_label_classification"


def is_of_transformers(config: Mapping[str, JsonValue]) -> bool:
    """Return whether the content of a ``config.json`` is that of a model of transformers."""
    return "model_type" in config or "architectures" in config


def architecture(config: Mapping[str, JsonValue], where: str) -> str:
    """Return the name of the class of a model; see :func:`unhot.models.arch.build`.

    Raises:
        InputError: transformers is not installed.
        ModelError: It is no image classifier of transformers.
    """
    return f"{FAMILY}:{_model_class(config, where).__name__}"


def build(config: Mapping[str, JsonValue]) -> nn.Module:
    """Build the untrained net of a ``config.json``, in eval mode.

    Raises:
        ModelError: The configuration is not one of an image classifier of transformers, or has invalid values.
    """
    with silence(), own_generators():
        net: nn.Module = _model_class(config, CONFIG)(_settings(config, CONFIG)).eval()
    return net


def load_net(config: Mapping[str, JsonValue], state: dict[str, Tensor], where: str) -> nn.Module:
    """Build the net of a ``config.json`` with its weights, which may have the names of an older transformers.

    Args:
        config: Content of the file.
        state: The weights.
        where: Name of the folder in error messages.

    Raises:
        ModelError: They do not fit each other; everything is listed.
    """
    made = _model_class(config, where)
    settings = _settings(config, where)
    try:
        with silence(), own_generators():
            with torch.device("meta"):
                size = sum(p.numel() for p in made(settings).parameters())
            if size > 2 * sum(t.numel() for t in state.values()):
                raise ValueError(f"the configuration describes {size:,} weights, many more than the file holds")
            net, info = made.from_pretrained(
                None, config=settings, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
            )  # of other sizes, too, so that all of these are listed
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"{where} does not fit its {CONFIG}: {first_line(error)}.") from error
    problems = [f"no weights for {k}." for k in sorted(info["missing_keys"])]
    problems += [f"{k} is not part of the architecture." for k in sorted(info["unexpected_keys"])]
    problems += [
        f"{k} has shape {tuple(own)}, the architecture {tuple(wanted)}."
        for k, own, wanted in sorted(info["mismatched_keys"])
    ]
    raise_all(ModelError, f"{where} does not fit its {CONFIG}", problems)
    loaded: nn.Module = net.eval()
    return loaded


def class_names(config: Mapping[str, JsonValue], outputs: int) -> tuple[str, ...] | None:
    """Return the names in ``id2label``; None if they are only numbered."""
    given = config.get("id2label")
    if not isinstance(given, dict) or set(given) != {str(i) for i in range(outputs)}:
        return None
    names = tuple(str(given[str(i)]) for i in range(outputs))
    return None if names == tuple(f"LABEL_{i}" for i in range(outputs)) else names


def input_of(folder: Path) -> InputSpec | None:
    """Return the input that the ``preprocessor_config.json`` of a folder describes; None if there is none."""
    path = folder / PROCESSOR
    return of_processor(parse_json(read_text(path), str(path)), str(path)) if path.is_file() else None


def example_shape(config: Mapping[str, JsonValue]) -> tuple[int, int, int] | None:
    """Return (C, H, W) of the inputs of a net that a ``config.json`` describes; None if it does not."""
    size, channels = config.get("image_size"), config.get("num_channels", 3)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    if isinstance(height, int) and isinstance(width, int) and isinstance(channels, int):
        return channels, height, width
    return None


def origin(folder: Path, config: dict[str, JsonValue]) -> Origin:
    """Return what a bundle keeps of a folder."""
    files: dict[str, JsonValue] = {CONFIG: config}
    if (folder / PROCESSOR).is_file():
        files[PROCESSOR] = parse_json(read_text(folder / PROCESSOR), str(folder / PROCESSOR))
    return Origin(kind="hf", files=files)


def _model_class(config: Mapping[str, JsonValue], where: str) -> Any:
    """Return the class of a model."""
    torchvision_ops.prepare()
    try:
        with silence():
            import transformers
            from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN
    except ImportError as error:
        raise InputError("transformers is not installed. Install it with: pip install 'unhot[hf]'.") from error
    kind, given = config.get("model_type"), config.get("architectures")
    named = str(given[0]) if isinstance(given, list) and given else None
    if kind not in KNOWN:
        if "auto_map" in config:
            raise ModelError(
                f"{where} needs code in the folder, which is not run. Give its weights file with "
                "--arch package.module:factory."
            )
        raise ModelError(
            f"{where}: transformers has no image classifier of the model_type {kind!r}. It has those of "
            f"{shortened(sorted(KNOWN))}."
        )
    known = KNOWN[str(kind)]
    choices = (known,) if isinstance(known, str) else tuple(known)
    if named is not None and named not in choices:
        raise ModelError(f"{where} holds a {named}, which is no image classifier. Give a {' or '.join(choices)}.")
    with silence():
        return getattr(transformers, named or choices[0])


def _settings(config: Mapping[str, JsonValue], where: str) -> Any:
    """Return the configuration that transformers makes of the content of a ``config.json``."""
    _refuse(config, where)
    made = _model_class(config, where).config_class
    try:
        with silence():
            return made.from_dict({k: v for k, v in config.items() if k not in UNUSED})
    except Exception as error:  # transformers checks values in many ways
        raise ModelError(f"{where}: {CONFIG} has invalid values: {first_line(error)}.") from error


def _refuse(config: Mapping[str, JsonValue], where: str) -> None:
    """Refuse what unhot cannot work on.

    Raises:
        ModelError: With every reason.
    """
    labels, kind = config.get("id2label"), config.get("problem_type")
    problems = []
    if "quantization_config" in config:
        problems.append("its weights are quantised. Give the net in floating point, as it was before.")
    if kind == MULTI:
        problems.append(
            "it is a multi-label classifier (problem_type): each output is a yes or no of its own. unhot supports "
            "classifiers that give each image one class."
        )
    if kind == "regression" or (isinstance(labels, dict) and len(labels) == 1):
        problems.append("it has a single output or is a regression. unhot needs an output for each of several classes.")
    raise_all(ModelError, where, problems)
