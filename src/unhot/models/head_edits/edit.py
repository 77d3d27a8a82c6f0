"""HeadEdit: the base class of all edits of a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from unhot.errors import ModelError
from unhot.models.head import linear
from unhot.records.base import Stored
from unhot.records.model import MOST_OUTPUTS, ClassLabel

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier

Outputs = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=MOST_OUTPUTS)], ...], Field(min_length=1, max_length=MOST_OUTPUTS)
]
Layer = Annotated[str, Field(max_length=300)]  # each nested layer takes a call of Python
Values = dict[str, Tensor]  # of weights and buffers, by dotted name


class HeadEdit(Stored):
    """An edit of a classifier's head: plain data that determines the layers of the head afterwards.

    Their weights are computed once, by ``of``, and stored with all weights. Loading an edited net applies the structure
    of all edits to its architecture, in order, and then loads the weights.
    """

    def structure(self, net: nn.Module) -> nn.Module:
        """Add the layers of this edit to a net, in place; their weights are still to be set or loaded.

        Returns:
            The net, or one that wraps it.

        Raises:
            ModelError: The net has no head that can be edited like this.
        """
        return net

    def head_after(self, head: str) -> str:
        """Return the name of the final linear layer afterwards; ``head`` is its name before."""
        return head

    def classes_after(self, classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ...]:
        """Return the class of each output afterwards."""
        return classes

    def on_logits(self, logits: Tensor) -> Tensor:
        """Return logits (B, K) as changed by an edit of the head alone.

        An edit of the features, or of weights before the head, returns them unchanged.
        """
        return logits


class OutputEdit(HeadEdit):
    """An edit of some outputs.

    Attributes:
        layer: Dotted name of the head.
        outputs: The outputs that are edited, by their positions before the edit.
    """

    layer: Layer
    outputs: Outputs

    def edited_layer(self, net: nn.Module) -> nn.Linear:
        """Return the head of a net.

        Raises:
            ModelError: It lacks one of the outputs.
        """
        head = linear(net, self.layer)
        if (last := max(self.outputs)) >= head.out_features:
            raise ModelError(f"Output {last} of {self.layer!r} is edited, and it has {head.out_features} outputs.")
        return head

    def others(self, count: int) -> list[int]:
        """Return which of ``count`` outputs are not edited."""
        return sorted(set(range(count)).difference(self.outputs))


class LayerEdit(HeadEdit):
    """An edit that inserts a layer before the head: a pair of layers named ``0`` and ``1`` replaces the head.

    Attributes:
        layer: Dotted name of the head before. If an earlier edit inserted the pair, it is changed.
    """

    weight: ClassVar[str]  # name of the weight of the inserted layer

    layer: Layer

    @classmethod
    def place(cls, model: Classifier) -> str:
        """Return the name of the layer that an edit of this kind changes: that of an earlier one, or the head."""
        weights = dict(model.module.named_parameters())
        around = ""  # prefix by which later edits wrap the net
        for edit in reversed(model.head_edits):
            if isinstance(edit, cls):
                place = around + edit.layer
                if model.head == f"{place}.1" and f"{place}.0.{cls.weight}" in weights:
                    return place
            around += edit.head_after("")
        return model.head

    def is_there(self, net: nn.Module) -> bool:
        """Return whether an earlier edit inserted a layer before the head."""
        return f"{self.layer}.1" in dict(net.named_modules())
