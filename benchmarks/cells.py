"""One cell of a benchmark: forget some classes, and measure what that did."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch.nn.functional import cosine_similarity

from unhot import Classifier, Runtime, draw
from unhot.data.images import LabelledImages
from unhot.data.source import Source
from unhot.errors import SampleWarning
from unhot.evaluation.metric import Case
from unhot.evaluation.metrics.accuracy import retain_drop_masked, worst_class_drop
from unhot.evaluation.view import Views
from unhot.files import write_atomic
from unhot.methods.base import Method


def forget(model: Classifier, source: Source, method: Method, label: int, shots: int, seed: int) -> tuple[Any, Any]:
    """Draw samples of one class and forget it; return the samples and the result."""
    samples = draw(source.train_images, classes=[label], shots=shots, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleWarning)
        return samples, method(model, samples, seed=seed, force=True)


def effects(model: Classifier, uncut: Classifier, test: LabelledImages, label: int) -> dict[str, float]:
    """Measure forgetting on test images, before the class is cut from the output."""
    case = Case(Views(model, uncut, [], [model.label(label)], {"test": test}, Runtime()), "unlearned")
    asked = case.view.is_forget
    return {
        "forget_accuracy_before_cut": case.view.correct[asked].float().mean().item(),
        "feature_cosine": cosine_similarity(case.view.features, case.original.features)[asked].mean().item(),
        "retain_drop_masked": retain_drop_masked(case).value,
        "worst_class_drop": worst_class_drop(case).value,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a record, one cell a line."""
    head = {k: v for k, v in content.items() if k != "cells"}
    cells = ",\n".join(json.dumps(c) for c in content["cells"])
    text = json.dumps(head, indent=1)[:-2] + f',\n "cells": [\n{cells}\n]}}\n'
    write_atomic(path, text.encode())
