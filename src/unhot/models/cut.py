"""Class weight masking (CWM): cut classes out of a classifier's output.

Source: Wang, Bie, Jing, Zhi: Feature-indistinguishable machine unlearning via negative-hot label encoding and class
weight masking, Sci. Reports 2026 (abstract); the treatment of the bias is a reconstruction: a row of zeros with its
bias left, or zeroed, can still win the argmax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from unhot.errors import OptionError
from unhot.models.classifier import Classifier
from unhot.models.head import is_plain
from unhot.models.head_edits.bottleneck import BottleneckEdit
from unhot.models.head_edits.excise import ExciseEdit
from unhot.models.head_edits.mask import MaskEdit
from unhot.records.model import ClassLabel

Cut = Literal["mask", "excise", "bottleneck", "none"]


def cut_classes(model: Classifier, labels: Sequence[ClassLabel], how: Cut) -> Classifier:
    """Cut classes out of the output, in place.

    Args:
        model: The classifier; its head is changed.
        labels: The classes to cut.
        how: ``mask`` zeroes their weights and sets their logits to -10,000, keeping the number and order of outputs;
            ``excise`` removes their outputs; ``bottleneck`` masks them and inserts a projection before the head, see
            :class:`BottleneckEdit`; ``none`` leaves the head unchanged. All but the last give the same probabilities
            for the other classes. A head that is not a plain linear layer, such as a cosine classifier, keeps its
            weights, and its output is masked: it can be cut in no other way.

    Returns:
        The classifier with its ``head_edits``, ``classes`` and ``head`` brought up to date.

    Raises:
        OptionError: The head is not a plain linear layer, or there is nothing that a bottleneck could leave out.
    """
    if how == "none" or not labels:
        return model.mark_forgotten(labels)
    if how != "mask" and not is_plain(model.head_layer):
        raise OptionError(
            f"cut={how} makes a new head of the weights of a plain nn.Linear, and the head {model.head!r} is a "
            f"{type(model.head_layer).__name__} that computes its logits in another way. Choose cut=mask."
        )
    edit = ExciseEdit if how == "excise" else MaskEdit
    cut = model.edited(*edit.of(model, model.columns(labels))).mark_forgotten(labels)
    return cut.edited(*BottleneckEdit.of(cut)) if how == "bottleneck" else cut
