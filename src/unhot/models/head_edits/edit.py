"""HeadEdit: what every edit of a head can do."""

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
Layer = Annotated[str, Field(max_length=300)]  # a layer in a layer in a layer takes a call of Python each
Values = dict[str, Tensor]  # of weights and buffers, by dotted name


class HeadEdit(Stored):
    """An edit of a classifier's head: plain data, which says of what layers the head is afterwards.

    What these layers hold is computed once, by ``of``, and kept with the weights: to load an edited net is to give its
    architecture the structure of all edits, in order, and to load the weights.
    """

    def structure(self, net: nn.Module) -> nn.Module:
        """Give a net the layers of this edit, in place; what new ones hold is still to be set or loaded.

        Returns:
            The net, or one around it.

        Raises:
            ModelError: The net has no head that could be edited like this.
        """
        return net

    def head_after(self, head: str) -> str:
        """Return the name of the final linear layer afterwards; ``head`` is what it was before."""
        return head

    def classes_after(self, classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ...]:
        """Return what each output stands for afterwards."""
        return classes

    def on_logits(self, logits: Tensor) -> Tensor:
        """Return what the edit makes of logits (B, K) by changing what comes after the features.

        An edit of the features, or of weights before the head, is not seen here: its logits are returned as they are.
        """
        return logits


class OutputEdit(HeadEdit):
    """An edit of some outputs.

    Attributes:
        layer: Dotted name of the head.
        outputs: Which of the outputs that it has before.
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
    """An edit that puts a layer before the head: the place of the head is taken by the two, called ``0`` and ``1``.

    Attributes:
        layer: Dotted name of the head as it was. Where the two are there already, they are changed.
    """

    weight: ClassVar[str]  # of the layer before the head

    layer: Layer

    @classmethod
    def place(cls, model: Classifier) -> str:
        """Return the name of the layer that an edit of this kind changes: of an earlier one's, or of the head."""
        weights = dict(model.module.named_parameters())
        around = ""  # what later edits put around the net
        for edit in reversed(model.head_edits):
            if isinstance(edit, cls):
                place = around + edit.layer
                if model.head == f"{place}.1" and f"{place}.0.{cls.weight}" in weights:
                    return place
            around += edit.head_after("")
        return model.head

    def is_there(self, net: nn.Module) -> bool:
        """Return whether an earlier edit put a layer before the head already."""
        return f"{self.layer}.1" in dict(net.named_modules())
