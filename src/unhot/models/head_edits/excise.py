"""Excise: some outputs are removed from the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from torch import Tensor, nn

from unhot.errors import ModelError
from unhot.models.head import linear_like, replace_layer
from unhot.models.head_edits.edit import OutputEdit, Values
from unhot.records.model import ClassLabel

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier


class ExciseEdit(OutputEdit):
    """Remove some outputs from a plain linear layer."""

    kind: Literal["excise"] = "excise"

    @classmethod
    def of(cls, model: Classifier, outputs: Sequence[int]) -> tuple[Self, Values]:
        """Return the edit of some outputs (one at least), and the weights of the head after it."""
        edit, name, head = cls(layer=model.head, outputs=tuple(outputs)), model.head, model.head_layer
        kept = edit.others(head.out_features)
        return edit, {f"{name}.{n}": w.detach()[kept] for n, w in head.named_parameters(recurse=False)}

    def structure(self, net: nn.Module) -> nn.Module:
        """Give the head fewer rows."""
        head = self.edited_layer(net)
        if (rows := len(self.others(head.out_features))) == 0:
            raise ModelError(f"All outputs of {self.layer!r} are removed. Leave some.")
        replace_layer(net, self.layer, linear_like(head, rows=rows, bias=head.bias is not None))
        return net

    def classes_after(self, classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ...]:
        """Return the classes that are left."""
        return tuple(classes[i] for i in self.others(len(classes)))

    def on_logits(self, logits: Tensor) -> Tensor:
        """Return the logits (B, K - outputs) that are left."""
        return logits[:, self.others(logits.shape[1])]
