"""The net of a model that was read from elsewhere, and its weights, as they came."""

from __future__ import annotations

from torch import Tensor, nn

from unhot.models.adapted import separated, structured
from unhot.models.arch import build
from unhot.models.classifier import Classifier
from unhot.models.formats import huggingface
from unhot.records.model import BundleInfo


def original_state(model: Classifier) -> dict[str, Tensor]:
    """Return the weights of a model by the names of the net that it was made of.

    Heads that became one are separate again. A file of weights may have had ``model.origin.stripped`` before each name.
    A masked head has a bias, which it may not have had.
    """
    state: dict[str, Tensor] = model.module.state_dict()
    origin = model.origin
    return separated(state, origin.heads) if origin is not None and origin.prefix else state


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
