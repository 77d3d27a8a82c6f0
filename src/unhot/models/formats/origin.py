"""The net of a model that was read from elsewhere, and its weights, as they came."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unhot.models.adapted import separated, structured
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.formats import huggingface
from unhot.records.model import BundleInfo, Origin


def original_state(model: Classifier) -> dict[str, Tensor]:
    """Return the weights of a model by the names of the net that it was made of.

    Heads that became one are separate again. A file of weights may have had ``model.origin.stripped`` before each name.
    A masked head has a bias, which it may not have had.
    """
    state: dict[str, Tensor] = model.module.state_dict()
    origin = model.origin
    return separated(state, origin.heads) if origin is not None and origin.prefix else state


def adapted_state(state: Mapping[str, Tensor], origin: Origin) -> dict[str, Tensor]:
    """Return the weights of a model by the names of its own net; the opposite of :func:`original_state`."""
    if not origin.prefix:
        return dict(state)
    parts = {f"{part.layer}.{name}" for part in origin.heads for name in ("weight", "bias")}
    found = {f"{origin.prefix}{name}": t for name, t in state.items() if name not in parts}
    if origin.heads:
        found["head.weight"] = torch.cat([state[f"{part.layer}.weight"].flatten(1) for part in origin.heads], 1)
        biases = [part.share * state[f"{part.layer}.bias"] for part in origin.heads]
        found["head.bias"] = torch.stack(biases).sum(0)
    return found


def net_of(info: BundleInfo) -> nn.Module:
    """Build the untrained net of a bundle from the code that its architecture names, without edits of its head.

    Raises:
        InputError: There is no such architecture, or it does not accept an option.
    """
    origin = info.origin
    config = None if origin is None else origin.files.get(huggingface.CONFIG)
    if origin is not None and origin.kind == "hf" and isinstance(config, dict):
        net = huggingface.build(config)
    else:
        net = build(info.arch, info.outputs, info.input, info.arch_options)
    return net if origin is None else structured(net, origin.output, origin.heads, info.outputs)
