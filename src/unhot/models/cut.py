"""Class weight masking (CWM): cut classes out of a classifier's output.

Source: Wang, Bie, Jing, Zhi: Feature-indistinguishable machine unlearning via negative-hot label encoding and class
weight masking, Sci. Reports 2026 (abstract); the treatment of the bias is a reconstruction: a row of zeros with its
bias left, or zeroed, can still win the argmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from unhot.errors import OptionError
from unhot.models.classifier import Classifier, replace_layer
from unhot.models.head import is_plain
from unhot.records.model import ClassLabel

Cut = Literal["mask", "excise", "bottleneck", "none"]

# low enough for exp() to be 0 in float32 beside any usual logit, and finite in float16, so that it can be exported
CUT_LOGIT = -1e4
CUT_OUTPUTS = "cut_outputs"  # a buffer of a head whose outputs are masked, bool (K,)


def cut_classes(model: Classifier, labels: Sequence[ClassLabel], how: Cut) -> Classifier:
    """Cut classes out of the output, in place.

    Args:
        model: The classifier; its head is changed.
        labels: The classes to cut.
        how: ``mask`` zeroes their weights and sets their logits to -10,000, keeping the number and order of outputs;
            ``excise`` removes their outputs; ``bottleneck`` masks them and puts a projection before the head, see
            :func:`bottleneck`; ``none`` leaves the head as it is. All but the last give the same probabilities on the
            other classes. A head that is not a plain linear layer, such as a cosine classifier, keeps its weights, and
            its output is masked: it can be cut in no other way.

    Returns:
        The classifier with ``forgotten`` brought up to date, and ``classes`` after ``excise``, ``head`` after
        ``bottleneck``.

    Raises:
        OptionError: The head is not a plain linear layer, or there is nothing that a bottleneck could leave out.
    """
    head, gone = model.head_layer, model.columns(labels)
    if how == "none":
        return model.mark_forgotten(labels)
    if not is_plain(head):
        if how != "mask":
            raise OptionError(
                f"cut={how} makes a new head of the weights of a plain nn.Linear, and the head {model.head!r} is a "
                f"{type(head).__name__} that computes its logits in another way. Choose cut=mask."
            )
        mask_outputs(head, gone)
        return model.mark_forgotten(labels)
    if how == "bottleneck":
        return bottleneck(cut_classes(model, labels, "mask"))
    kept = [i for i in range(len(model.classes)) if how == "mask" or i not in gone]
    has_bias = head.bias is not None or how == "mask"
    cut = skip_init(nn.Linear, head.in_features, len(kept), bias=has_bias)  # initialising would draw random numbers
    cut.to(head.weight)
    with torch.no_grad():
        cut.weight.copy_(head.weight[kept])
        if cut.bias is not None:
            cut.bias.copy_(head.bias[kept] if head.bias is not None else torch.zeros_like(cut.bias))
        if how == "mask":
            cut.weight[gone] = 0.0
            cut.bias[gone] = CUT_LOGIT
    replace_layer(model.module, model.head, cut.train(head.training).requires_grad_(head.weight.requires_grad))
    return replace(model.mark_forgotten(labels), classes=tuple(model.classes[i] for i in kept))


def mask_outputs(head: nn.Linear, columns: Sequence[int] = ()) -> None:
    """Set some logits of a head to -10,000 after whatever it computes, in place.

    Which ones is kept in a buffer of the head, and so with the weights.
    """
    if CUT_OUTPUTS not in dict(head.named_buffers(recurse=False)):
        head.register_buffer(CUT_OUTPUTS, torch.zeros(head.out_features, dtype=torch.bool, device=head.weight.device))
        head.register_forward_hook(_masked)
    head.get_buffer(CUT_OUTPUTS)[list(columns)] = True


def _masked(head: nn.Module, _: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return logits.masked_fill(head.get_buffer(CUT_OUTPUTS), CUT_LOGIT)


def bottleneck(model: Classifier) -> Classifier:
    r"""Let the head see no more of the features than tells the classes left apart, in place.

    With W the R rows of these classes, centred by their mean, and U (d, r) an orthonormal basis of the space they
    span, r at most R - 1, the head becomes :math:`(W U)\, U^\top h + b`: the probabilities of these classes are those
    of before, since softmax does not see what is added to all logits, and the features become :math:`U^\top h`.

    Who has the weights reads the features before the projection as well as ever: this is for those who are given
    features and not the model.

    Args:
        model: The classifier; its head is replaced by a :class:`Bottleneck`, one that is there already by a narrower.

    Returns:
        The classifier with the second of them as its ``head``.

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
            f"A bottleneck leaves out what does not tell the {len(kept)} classes left apart; with {head.in_features} "
            "features there is nothing to leave out, or nothing left. Cut by mask or excise."
        )
    read = skip_init(nn.Linear, head.in_features, len(basis), bias=False).to(head.weight)
    said = skip_init(nn.Linear, len(basis), head.out_features).to(head.weight)
    with torch.no_grad():
        read.weight.copy_(basis)
        said.weight.zero_()
        said.weight[kept] = (rows @ basis.T).to(said.weight)
        said.bias.copy_(head.bias if head.bias is not None else torch.zeros_like(said.bias))
    before, _, child = model.head.rpartition(".")
    place = model.head
    if child == "1" and isinstance(already := model.module.get_submodule(before), Bottleneck):
        read.weight.data, place = basis.to(read.weight) @ already[0].weight.data, before
    both = Bottleneck(read, said).train(head.training).requires_grad_(head.weight.requires_grad)
    replace_layer(model.module, place, both)
    return replace(model, head=f"{place}.1")


class Bottleneck(nn.Sequential):
    """A projection of the features, without bias, and the head that reads what it leaves: (B, d) to (B, K)."""

    def __init__(self, read: nn.Linear, said: nn.Linear) -> None:
        super().__init__(read, said)
