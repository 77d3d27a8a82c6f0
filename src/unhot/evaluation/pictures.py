"""What the audit page draws beside the measurements: curves and points, as records."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.nn.functional import log_softmax

from unhot.evaluation.metric import Case, NotMeasurable
from unhot.evaluation.metrics.features import probe
from unhot.evaluation.view import Views
from unhot.records.audit import PlotData, Subject

MAP_IMAGES = 1_000
MAP_RUNS = 3  # as many retrained models are mapped
# masked has the features of the original
FEATURE_SUBJECTS: tuple[Subject, ...] = ("original", "unlearned", "retrained")


def confusion(views: Views) -> Iterator[PlotData]:
    """Give, for every model, the mean probability of each class on images of the forgotten classes."""
    names = tuple(c.name for c in views.models["original"][0].classes)
    for subject, models in views.models.items():
        for run in range(len(models)):
            view = views.of(subject, "test", run)
            p = log_softmax(view.logits[view.is_forget], dim=1).exp().mean(0)
            yield PlotData(name="confusion", subject=subject, run=run, x=names, y=tuple(p.tolist()))


def feature_map(views: Views) -> Iterator[PlotData]:
    """Give the test images' features on the two main axes of the original's, retrained models turned onto these.

    The axes are the original's principal components. A retrained model's features may be any rotation of these, so its
    centred features are mapped by the orthogonal matrix that brings them nearest to the original's (Procrustes).
    """
    from scipy.linalg import orthogonal_procrustes

    names = [c.name for c in views.models["original"][0].classes]
    base = views.of("original", "test")
    chosen = torch.randperm(len(base.y), generator=views.runtime.generator("map"))[:MAP_IMAGES]
    groups = tuple(names[i] for i in base.y[chosen].tolist())
    anchor = _centred(base.features[chosen].numpy())
    axes = np.linalg.svd(anchor, full_matrices=False)[2][:2].T

    def placed(subject: Subject, run: int) -> PlotData:
        own = _centred(views.of(subject, "test", run).features[chosen].numpy())
        # an unlearned model mostly starts from the original, and then its axes are the same
        if subject == "retrained" or own.shape[1] != anchor.shape[1]:
            width = max(own.shape[1], anchor.shape[1])
            padded = [np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in (own, anchor)]
            own = (padded[0] @ orthogonal_procrustes(*padded)[0])[:, : anchor.shape[1]]
        x, y = np.pad(own @ axes, ((0, 0), (0, 2 - axes.shape[1]))).T  # of features of one number there is one axis
        return PlotData(name="map", subject=subject, run=run, x=tuple(x.tolist()), y=tuple(y.tolist()), groups=groups)

    for subject in FEATURE_SUBJECTS:
        for run in range(len(views.models[subject][:MAP_RUNS])):
            yield views.once(("map", subject, run), partial(placed, subject, run), subject, run)


def layers(views: Views) -> Iterator[PlotData]:
    """Give the accuracy of a linear probe on the forgotten classes, layer by layer; the penultimate one is last."""
    for subject in FEATURE_SUBJECTS:
        for run in range(len(views.models[subject])):
            case = Case(views, subject, "test", run)
            names = [*case.view.layers, None]
            try:
                found = [probe(case, name).value for name in names]
            except NotMeasurable:
                return
            x = tuple(name or "penultimate" for name in names)
            yield PlotData(name="layers", subject=subject, run=run, x=x, y=tuple(found))


def _centred(features: np.ndarray) -> np.ndarray:
    centred: np.ndarray = features.astype(np.float64) - features.mean(0)
    return centred
