"""The weights of a model by the names that they had where it was read from."""

from __future__ import annotations

from torch import Tensor

from unhot.models.adapted import separated
from unhot.models.classifier import Classifier


def original_state(model: Classifier) -> dict[str, Tensor]:
    """Return the weights of a model by the names of the net that it was made of.

    Heads that became one are separate again. A file of weights may have had ``model.origin.stripped`` before each name.
    A masked head has a bias, which it may not have had.
    """
    state: dict[str, Tensor] = model.module.state_dict()
    origin = model.origin
    return separated(state, origin.heads) if origin is not None and origin.prefix else state
