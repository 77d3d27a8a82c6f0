"""Bottleneck: a projection before the head that keeps only the features that distinguish the retained classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import nn

from unhot.errors import ModelError, OptionError
from unhot.models.head import linear, linear_like, replace_layer
from unhot.models.head_edits.edit import LayerEdit, Values
from unhot.records.model import MOST_WIDTH

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier


class Bottleneck(nn.Sequential):
    """A projection of the features, without bias, and the head that reads its output: (B, d) to (B, K)."""

    def __init__(self, narrow: nn.Linear, head: nn.Linear) -> None:
        super().__init__(narrow, head)


class BottleneckEdit(LayerEdit):
    r"""Let the head read no more of the features than distinguishes the retained classes.

    With W the R rows of these classes, centred by their mean, and U (d, r) an orthonormal basis of the space they
    span, r at most R - 1, the head becomes :math:`(W U)\, U^\top h + b`: the probabilities of these classes do not
    change, since softmax ignores a constant that is added to all logits, and the features become :math:`U^\top h`.

    Whoever has the weights can still read the features before the projection: this protects features that are published
    without the model.

    Attributes:
        width: Number r of features after the projection.
    """

    weight: ClassVar[str] = "weight"

    kind: Literal["bottleneck"] = "bottleneck"
    width: Annotated[int, Field(gt=0, le=MOST_WIDTH)]

    @classmethod
    def of(cls, model: Classifier) -> tuple[Self, Values]:
        """Return the edit that drops the features that only forgotten classes of a model use, and the new weights.

        Raises:
            OptionError: One class is left, or the classes left use all of the features.
        """
        head, kept = model.head_layer, model.others([])
        rows = head.weight.detach()[kept].double()
        rows = rows - rows.mean(0)
        _, lengths, basis = torch.linalg.svd(rows, full_matrices=False)
        basis = basis[lengths > 1e-6 * lengths[:1].clamp_min(1e-30)]
        if not 0 < len(basis) < head.in_features:
            raise OptionError(
                f"cut=bottleneck keeps the directions that tell the {len(kept)} retained classes apart, and these are "
                f"{len(basis)} of the {head.in_features} dimensions of the features, so there is nothing to cut by. "
                "Choose cut=mask or cut=excise."
            )
        narrow, weight = basis.to(head.weight), head.weight.new_zeros(head.out_features, len(basis))
        weight[kept] = (rows @ basis.T).to(weight)
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach()
        if (place := cls.place(model)) != model.head:
            narrow = narrow @ linear(model.module, f"{place}.0").weight.detach()
        values = {f"{place}.0.weight": narrow, f"{place}.1.weight": weight, f"{place}.1.bias": bias}
        return cls(layer=place, width=len(basis)), values

    def structure(self, net: nn.Module) -> nn.Module:
        """Replace the head by two layers."""
        names, there = (f"{self.layer}.0", f"{self.layer}.1"), self.is_there(net)
        first, last = (linear(net, name if there else self.layer) for name in names)
        if self.width > first.in_features:
            raise ModelError(f"A bottleneck of {self.width} does not fit the {first.in_features} features.")
        narrow, head = linear_like(first, rows=self.width, bias=False), linear_like(last, features=self.width)
        if there:
            replace_layer(net, names[0], narrow)
            replace_layer(net, names[1], head)
        else:
            replace_layer(net, self.layer, Bottleneck(narrow, head).train(last.training))
        return net

    def head_after(self, head: str) -> str:
        """Return the name of the second layer."""
        return f"{self.layer}.1"
