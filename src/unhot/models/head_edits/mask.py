"""Mask: the logits of some outputs become -10,000; number and order of outputs do not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from unhot.models.head import is_plain, linear_like, replace_layer
from unhot.models.head_edits.edit import OutputEdit, Values

if TYPE_CHECKING:
    from unhot.models.classifier import Classifier

# low enough for exp() to be 0 in float32 beside any usual logit, and finite in float16, so that it can be exported
CUT_LOGIT = -1e4
CUT_OUTPUTS = "cut_outputs"  # buffer of a head whose outputs are masked by a hook, bool (K,)


class MaskEdit(OutputEdit):
    """Set the logits of some outputs to -10,000.

    Attributes:
        by: ``weights`` zeroes their rows of a plain linear layer and sets their biases to -10,000; ``hook`` overwrites
            the logits of a layer that computes them in another way, such as a cosine classifier.
        adds_bias: Whether the head had no bias before.
    """

    kind: Literal["mask"] = "mask"
    by: Literal["weights", "hook"] = "weights"
    adds_bias: bool = False

    @classmethod
    def of(cls, model: Classifier, outputs: Sequence[int]) -> tuple[Self, Values]:
        """Return the edit of some outputs (one at least), and the weights of the head after it."""
        name, head, gone = model.head, model.head_layer, list(outputs)
        if not is_plain(head):
            flags = torch.zeros(head.out_features, dtype=torch.bool, device=head.weight.device)
            flags |= dict(head.named_buffers(recurse=False)).get(CUT_OUTPUTS, flags)
            flags[gone] = True
            return cls(layer=name, outputs=tuple(gone), by="hook"), {f"{name}.{CUT_OUTPUTS}": flags}
        weight = head.weight.detach().clone()
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach().clone()
        weight[gone], bias[gone] = 0.0, CUT_LOGIT
        edit = cls(layer=name, outputs=tuple(gone), adds_bias=head.bias is None)
        return edit, {f"{name}.weight": weight, f"{name}.bias": bias}

    def structure(self, net: nn.Module) -> nn.Module:
        """Give the head a bias, or a buffer and a hook."""
        head = self.edited_layer(net)
        if self.by == "weights":  # a new layer: its weights may be another layer's too
            replace_layer(net, self.layer, linear_like(head))
        elif CUT_OUTPUTS not in dict(head.named_buffers(recurse=False)):
            none = torch.zeros(head.out_features, dtype=torch.bool, device=head.weight.device)
            head.register_buffer(CUT_OUTPUTS, none)
            head.register_forward_hook(_masked)
        return net

    def on_logits(self, logits: Tensor) -> Tensor:
        """Return the logits (B, K) with those of the outputs at -10,000."""
        return logits.index_fill(1, torch.tensor(self.outputs, device=logits.device), CUT_LOGIT)


def _masked(head: nn.Module, _: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return logits.masked_fill(head.get_buffer(CUT_OUTPUTS), CUT_LOGIT)
