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
from torch import nn
from torch.nn.utils import skip_init

from unhot.models.classifier import Classifier, replace_layer
from unhot.record import ClassLabel

Cut = Literal["mask", "excise", "none"]

# low enough for exp() to be 0 in float32 beside any usual logit, and finite in float16, so that it can be exported
CUT_LOGIT = -1e4


def cut_classes(model: Classifier, labels: Sequence[ClassLabel], how: Cut) -> Classifier:
    """Cut classes out of the output, in place.

    Args:
        model: The classifier; its head is changed.
        labels: The classes to cut.
        how: ``mask`` zeroes their weights and sets their logits to -10,000, keeping the number and order of outputs;
            ``excise`` removes their outputs; ``none`` leaves the head as it is. The first two give the same
            probabilities on the other classes.

    Returns:
        The classifier with ``forgotten``, and ``classes`` after ``excise``, brought up to date.
    """
    head, gone = model.head_layer, model.columns(labels)
    if how == "none":
        return model.without(labels)
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
    return replace(model.without(labels), classes=tuple(model.classes[i] for i in kept))
