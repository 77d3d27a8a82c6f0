"""What a bench measures of an unlearned model beside its audit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cosine_similarity, kl_div, log_softmax

from unhot.data.augment import distort
from unhot.data.images import LabelledImages
from unhot.data.samples import Samples
from unhot.evaluation.metric import Case
from unhot.evaluation.metrics import catalogue as metrics
from unhot.evaluation.view import ModelResults, Views
from unhot.models.classifier import Classifier
from unhot.records.model import ClassLabel
from unhot.records.results import SEQUENCE
from unhot.runtime import Runtime


@torch.no_grad()
def signals(model: Classifier, unlearned: Classifier, samples: Samples, runtime: Runtime) -> dict[str, float]:
    """Measure what may be seen with samples only: the samples, and distorted copies of them."""
    before, after = model.copy(runtime.device), unlearned.copy(runtime.device)
    x = samples.images.inputs(torch.arange(len(samples)), model.input, runtime.device)
    away = distort(x, Runtime().generator("drift"))
    gone = after.columns(c for c in model.requested(samples) if c in after.classes)
    (was, _), (now, logits) = before.features_and_logits(x), after.features_and_logits(x)
    kept = before.columns(after.classes)  # an excised class has no output
    expected, moved = log_softmax(before.logits(away)[:, kept], 1), log_softmax(after.logits(away), 1)
    return {
        "probability_left": logits.softmax(1)[:, gone].sum(1).mean().item(),
        "feature_cosine": cosine_similarity(was, now).mean().item() if was.shape == now.shape else 0.0,
        "drift_nats": kl_div(moved, expected, reduction="batchmean", log_target=True).item(),
    }


def before_cut(
    original: Classifier, uncut: Classifier, labels: Sequence[ClassLabel], test: LabelledImages, runtime: Runtime
) -> dict[str, float]:
    """Measure on images of the forgotten classes what is left of them before they are cut from the output."""
    case = Case(Views(original, uncut, [], labels, {"test": original.align(test)}, runtime), "unlearned")
    was, now = case.original.features, case.view.features
    cosine = cosine_similarity(was, now).mean().item() if was.shape == now.shape else 0.0
    return {"forget_accuracy": case.view.correct.float().mean().item(), "feature_cosine": cosine}


def lost_so_far(
    original: ModelResults, unlearned: Classifier, labels: Sequence[ClassLabel], test: LabelledImages, runtime: Runtime
) -> dict[str, float]:
    """Measure on all test images what a request of a sequence has left."""
    case = Case(Views(original, unlearned, [], labels, {"test": original.model.align(test)}, runtime), "unlearned")
    return {name: metrics.get(name)(case).value for name in sorted(SEQUENCE)}
