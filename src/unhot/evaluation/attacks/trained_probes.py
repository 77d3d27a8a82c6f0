"""Trained probes: classifiers that are fitted to all images of the forgotten class and of the retained ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from unhot.evaluation.metric import Attack, Case, Finding, Labelled, NotMeasurable
from unhot.evaluation.recovery import found, safe_queries
from unhot.evaluation.representations import RIDGE
from unhot.evaluation.stats import Estimate, averaged, proportion

LEAST = 10  # images of the class
NEIGHBOURS = 20
STRENGTHS = np.logspace(-3, 1, 5)  # of the logistic regressions, whose C is chosen by cross-validation
FOLDS = 3
HIDDEN = (64,)


class TrainedProbes(Attack):
    """Classifiers are fitted to tell the features of the class from those of the retained classes.

    There are two logistic regressions, on standardised features and on features whitened by the covariance within the
    retained classes, their penalty chosen by cross-validation; a net of one hidden layer; and the nearest neighbours.
    The threshold of each is the lowest one at which at most ``cost`` of the retained test images are lost that the
    model classifies correctly. Reported is what the strongest recovers; several forgotten classes are attacked one
    after the other.

    Attributes:
        cost: Share of the retained images that may be lost.

    Source: linear probes, Alain, Bengio, ICLR workshop 2017; control of their capacity, Hewitt, Liang, EMNLP 2019.
    """

    cost: float = Field(default=0.01, gt=0, lt=1)

    def run(self, case: Case) -> Finding:
        """Attack."""
        classes = case.once(("trained-probes", self), lambda: [self._class(case, c) for c in case.views.columns])
        return Finding({"recovery_all_images": averaged(classes)})

    def _class(self, case: Case, column: int) -> Estimate:
        gallery, queries = case.gallery(), case.queries()
        own, others = gallery.y == column, ~case.is_forget(gallery.y)
        if int(own.sum()) < LEAST or int(others.sum()) < LEAST:
            raise NotMeasurable(f"fewer than {LEAST} images of a forgotten class, or of the others, to learn from")
        mine, safe = queries.y == column, safe_queries(case)
        if not mine.any():
            raise NotMeasurable("no images of a forgotten class to recognise")
        hits = [
            found(torch.from_numpy(np.asarray(score, dtype=np.float64))[:, None], mine, safe, self.cost)[:, 0]
            for score in _scores(gallery, own, own | others, queries.features, case.runtime.seed)
        ]
        return proportion(max(hits, key=lambda hit: int(hit.sum())))


def _scores(gallery: Labelled, own: Tensor, known: Tensor, asked: Tensor, seed: int) -> Iterator[np.ndarray]:
    """Fit the classifiers; give the score of every query by each."""
    h, y, q = gallery.features.double(), own[known].numpy(), asked.double()
    middle, spread = h[known].mean(0), h[known].std(0).clamp_min(1e-300)
    varies = (h[known] != h[known][0]).any(0)
    z, of = ((x - middle)[:, varies] / spread[varies] for x in (h, q))
    others = known & ~own
    white = _whitener(z[others], gallery.y[others])
    z = z[known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        for x, t in ((z, of), (z @ white, of @ white)):
            line = LogisticRegressionCV(Cs=STRENGTHS, cv=FOLDS, scoring="neg_log_loss", max_iter=200, tol=1e-3)
            yield line.fit(x.numpy(), y).decision_function(t.numpy())
        net = MLPClassifier(HIDDEN, alpha=1e-2, max_iter=50, early_stopping=len(y) > 500, random_state=seed)
        yield net.fit(z.numpy(), y).predict_proba(of.numpy())[:, 1]
        near = KNeighborsClassifier(min(NEIGHBOURS, len(y)), weights="distance", metric="cosine")
        yield near.fit(z.numpy(), y).predict_proba(of.numpy())[:, 1]


def _whitener(z: Tensor, y: Tensor) -> Tensor:
    """Return the matrix that whitens the covariance within classes, (d, d)."""
    classes, index = y.unique(return_inverse=True)
    rest = z - torch.stack([z[y == c].mean(0) for c in classes])[index]
    values, axes = torch.linalg.eigh(rest.T @ rest / max(1, len(y) - len(classes)))
    found: Tensor = axes * (values.clamp_min(0) + RIDGE * values[-1]) ** -0.5
    return found
