"""Filter: gates on the weights of a net, multiplied into them once or in every forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unhot.errors import ModelError, shortened
from unhot.models.head_edits.edit import HeadEdit, Values
from unhot.models.weights import as_input
from unhot.records.model import ClassLabel

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
MOST_FILTERS = 8
ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class Filtered(nn.Module):
    """A net whose weights are multiplied by gates in every forward pass; it starts with gates of one."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.training = base.training
        self.register_buffer("gates", torch.cat([w.new_ones(len(w)) for w in gated_weights(base).values()]))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) of inputs x (B, C, H, W)."""
        weights = gated_weights(self.base)
        gates = self.get_buffer("gates").split([len(w) for w in weights.values()])
        return call(self.base, dict(zip(weights, gates, strict=True)), x)


class FilterEdit(HeadEdit):
    """Multiply gates into the weights of the whole net.

    Attributes:
        classes: The classes that the gates hide.
        selected: Whether the gates are multiplied in every forward pass, by a :class:`Filtered` around the net, which
            can be removed; otherwise they are multiplied into the weights permanently.
    """

    kind: Literal["filter"] = "filter"
    classes: tuple[ClassLabel, ...]
    selected: bool = False

    @classmethod
    def of(
        cls, model: Classifier, classes: Sequence[ClassLabel], row: Mapping[str, Tensor], selected: bool = False
    ) -> tuple[Self, Values]:
        """Return the edit by the gates (rows,) of each weight, by dotted name, and the weights of the net after it.

        Raises:
            ModelError: The net does not have these weights.
        """
        values = gated(model.module, row)
        if selected:
            values = {"gates": torch.cat([row[name].to(weight) for name, weight in values.items()])}
        return cls(classes=tuple(classes), selected=selected), values

    def structure(self, net: nn.Module) -> nn.Module:
        """Wrap the net in one that multiplies its weights by gates, if they are selected."""
        if not self.selected:
            return net
        if sum(isinstance(m, Filtered) for m in net.modules()) == MOST_FILTERS:
            raise ModelError(
                f"More than {MOST_FILTERS} filters are nested around the net. Make some permanent with "
                "WeightFilter.bake."
            )
        return Filtered(net)

    def head_after(self, head: str) -> str:
        """Return the name of the head in the net around it."""
        return f"base.{head}" if self.selected else head


def gated_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that have gates, by dotted name: of convolutions, linear layers and attention's projections.

    Raises:
        ModelError: There are none.
    """
    found: dict[str, nn.Parameter] = {}
    for prefix, layer in module.named_modules():
        own = (
            ATTENTION if isinstance(layer, nn.MultiheadAttention) else ("weight",) if isinstance(layer, LAYERS) else ()
        )
        weights = {name: layer._parameters.get(name) for name in own}  # a weight that is computed is not in there
        found |= {f"{prefix}.{name}".lstrip("."): w for name, w in weights.items() if w is not None}
    once = {id(w): name for name, w in reversed(found.items())}  # a weight that two layers share has one gate
    if not once:
        raise ModelError("The net has no convolution, linear layer or attention to put gates on.")
    return {name: w for name, w in found.items() if once[id(w)] == name}


def gated(module: nn.Module, row: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a net multiplied by their gates (rows,).

    Raises:
        ModelError: The net does not have them.
    """
    weights = gated_weights(module)
    if unlike := sorted(row.keys() ^ weights.keys()):
        raise ModelError(f"The gates do not fit the net: they differ in {shortened(unlike)}.")
    return {n: w * row[n].to(w).view(-1, *[1] * (w.ndim - 1)) for n, w in weights.items()}


def call(module: nn.Module, row: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the output of a net whose weights are multiplied by their gates, for inputs x (B, C, H, W)."""
    return cast(Tensor, functional_call(module, gated(module, row), (as_input(module, x),)))
