"""Weights without the layers that edits inserted: those that the code of the original net can load."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unhot.errors import ModelError, OptionError, spelled
from unhot.models.classifier import Classifier
from unhot.models.formats.exports.comparison import masked_classes
from unhot.models.formats.exports.target import Target
from unhot.models.head import linear, linear_like, replace_layer
from unhot.models.head_edits.edit import LayerEdit
from unhot.models.head_edits.filter import FilterEdit
from unhot.models.head_edits.mask import MaskEdit
from unhot.models.head_edits.projection import Projection, project_out

OTHERWISE = "Export it as onnx, torchscript or pt2, which hold the layers too."


class WeightsAlone(Target):
    """A format that holds weights, and whose net is built by the code of the original."""

    holds_weights_alone: ClassVar[bool] = True

    def __init__(self, model: Classifier, keep_keys: bool) -> None:
        super().__init__(folded(model), keep_keys)
        self.has_new_bias = any(isinstance(e, MaskEdit) and e.adds_bias for e in model.head_edits)
        if self.has_new_bias and keep_keys:
            without_bias(self.model)

    @property
    def added(self) -> tuple[str, ...]:
        """The bias that the mask gave a head without one."""
        return (f"{self.model.head}.bias",) if self.has_new_bias and not self.keep_keys else ()

    @property
    def has_other_cut(self) -> bool:
        """Whether the head has no bias that could be -10,000."""
        return self.has_new_bias and self.keep_keys


@torch.no_grad()
def folded(model: Classifier) -> Classifier:
    """Multiply the layers that edits inserted before the head of a classifier into it, in place.

    Raises:
        ModelError: The weights of a plain net cannot do what the edits do.
    """
    if any(isinstance(e, MaskEdit) and e.by == "hook" for e in model.head_edits):
        raise ModelError(
            f"The head {model.head!r} is not a plain nn.Linear, so the class was cut from its output, and weights "
            f"alone do not hold that. {OTHERWISE}"
        )
    if any(isinstance(e, FilterEdit) and e.selected for e in model.head_edits):
        raise ModelError(
            "The class is hidden by a filter around the net, which weights alone do not hold. Make it permanent with "
            "WeightFilter.bake, or export the model as onnx, torchscript or pt2."
        )
    net, head = model.module, model.head
    for edit in reversed(model.head_edits):
        if isinstance(edit, LayerEdit) and head == f"{edit.layer}.1":
            pair = net.get_submodule(edit.layer)
            if not isinstance(pair, nn.Sequential):
                raise ModelError(
                    f"The layer {edit.layer}.0, which was inserted before the head, is part of the graph of this net, "
                    f"and cannot be taken out of it. {OTHERWISE}"
                )
            replace_layer(net, edit.layer, _product(pair[0], linear(net, head)))
            head = edit.layer
    return replace(model, head=head)


def _product(inner: nn.Module, head: nn.Linear) -> nn.Linear:
    """Return the linear layer that does what an inserted layer and the head do."""
    if isinstance(inner, Projection):
        weight = project_out(head.weight.double(), inner.away.double())
    else:
        weight = head.weight.double() @ inner.get_parameter("weight").double()
    return _with(linear_like(head, features=weight.shape[1], bias=head.bias is not None), weight, head.bias)


def _with(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


@torch.no_grad()
def without_bias(model: Classifier) -> None:
    """Take the bias from a head that had none before its classes were masked, in place.

    Without a bias no logit is low whatever the image is: each is a product with the features, of either sign. But the
    mean of other logits is never above the largest of them. So the weights of a masked class become the mean of those
    of the other classes.

    Raises:
        OptionError: One class is left, of which the mean would be the class itself.
    """
    head, masked = model.head_layer, model.columns(masked_classes(model))
    others = [c for c in range(head.out_features) if c not in masked]
    if len(others) < 2:
        error = OptionError(
            "Without a bias a class is cut by the mean of the weights of the others, of which there must be two. Leave "
            "keep_keys=True out."
        )
        raise spelled(error, "keep_keys=True", "--keep-keys")
    weight = head.weight.double()
    weight[masked] = weight[others].mean(0)
    replace_layer(model.module, model.head, _with(linear_like(head, bias=False), weight, None))
