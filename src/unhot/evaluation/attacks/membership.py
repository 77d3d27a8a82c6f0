"""Membership inference: can images of the forgotten class that were trained on be told from others of it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from sklearn.metrics import roc_curve
from torch import Tensor
from torch.nn.functional import log_softmax

from unhot.evaluation.metric import Attack, Case, Finding, NotMeasurable
from unhot.evaluation.scores import Score
from unhot.evaluation.stats import Estimate, area, proportion, worth
from unhot.records.audit import PlotData, Split

LEAST = 20
FLOOR = 1e-12  # probabilities below are raised to this, so that logarithms stay finite


class Scores(NamedTuple):
    """What a model's outputs say about the images of the forgotten classes of a split, each (N,), in float64."""

    loss: np.ndarray
    confidence: np.ndarray
    modified_entropy: np.ndarray


class Membership(Attack):
    """Scores of forgotten images of the train split (members) against those of the test split.

    Three scores, each higher for members: minus the loss, the confidence, and minus the modified entropy. The main one
    is the modified entropy, which still speaks when the class has been cut out of the output. 0.5 is chance, and what a
    retrained model gives; far below it is a leak too. Several classes are weighed so that each has the same share of
    the members and of the others. The loss, the confidence and the modified entropy of each image are kept with the
    audit.

    Attributes:
        scores_kept: Images of each split whose scores are kept, at most; drawn by seed, the same for every model.

    Source: Song, Mittal: Systematic evaluation of privacy risks of machine learning models, USENIX Security 2021,
    equation 8 (modified entropy); Carlini et al.: Membership inference attacks from first principles, S&P 2022.
    """

    scores_kept: int = Field(default=2_000, ge=0)

    def run(self, case: Case) -> Finding:
        """Attack."""
        members, others = self._scores(case, "train"), self._scores(case, "test")
        weights = balanced(self._labels(case, "train"), self._labels(case, "test"))
        (m, n), worths = (int((w > 0).sum()) for w in weights), tuple(map(worth, weights))
        if min(m, n) < LEAST:
            raise NotMeasurable(
                f"only {m} train and {n} test images of the forgotten classes, {LEAST} of each are needed"
            )
        main = -members.modified_entropy, -others.modified_entropy
        estimates: dict[str, Estimate | str] = {
            "mia_auc": area(*main, weights),
            "mia_auc_loss": area(-members.loss, -others.loss, weights),
            "mia_auc_confidence": area(members.confidence, others.confidence, weights),
        }
        for name, rate in (("mia_tpr_at_1pct_fpr", 0.01), ("mia_tpr_at_01pct_fpr", 0.001)):
            there = round(worths[1])
            few = (
                f"a false positive rate of {rate:g} needs {round(1 / rate)} test images of the class, there are {there}"
            )
            estimates[name] = tpr_at(*main, rate, weights) if there * rate >= 1 else few
        truth = np.r_[np.ones(len(main[0])), np.zeros(len(main[1]))]
        fpr, tpr, _ = roc_curve(truth, np.r_[main], sample_weight=np.concatenate(weights))
        curve = PlotData(name="roc", subject=case.subject, run=case.run, x=tuple(fpr.tolist()), y=tuple(tpr.tolist()))
        return Finding(
            estimates, (curve,), scores=(*self._raw(case, "train", members), *self._raw(case, "test", others))
        )

    @staticmethod
    def _labels(case: Case, split: Split) -> Tensor:
        view = case.on(split)
        return view.y[view.is_forget]

    @staticmethod
    def _scores(case: Case, split: Split) -> Scores:
        view = case.on(split)
        logits, y = view.logits[view.is_forget].double(), view.y[view.is_forget]
        p = log_softmax(logits, dim=1).exp()
        loss = -p.gather(1, y[:, None]).squeeze(1).clamp_min(FLOOR).log()
        return Scores(loss.numpy(), p.amax(1).numpy(), modified_entropy(p, y).numpy())

    def _raw(self, case: Case, split: Split, scores: Scores) -> Iterator[Score]:
        """Give the scores of single images, of at most ``scores_kept`` of them."""
        images, classes = case.images(split), case.views.models["original"][0].classes
        places = case.on(split).is_forget.nonzero().flatten().tolist()
        order = torch.randperm(len(places), generator=case.runtime.generator("scores", split))
        for i in order[: self.scores_kept].sort().values.tolist():
            key, label = images.keys[places[i]], classes[int(images.y[places[i]])].index
            numbers = (float(values[i]) + 0.0 for values in scores)  # + 0.0 turns -0.0 into 0.0
            yield Score(case.subject, case.run, split, key, label, *numbers)


def modified_entropy(p: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`-(1-p_y) \log p_y - \sum_{k \ne y} p_k \log(1-p_k)`, (N,), nats.

    Args:
        p: Probabilities (N, K).
        y: Labels, int64 (N,).
    """
    own = p.gather(1, y[:, None]).squeeze(1)
    others = (p * (1 - p).clamp_min(FLOOR).log()).scatter(1, y[:, None], 0.0).sum(1)
    return -(1 - own) * own.clamp_min(FLOOR).log() - others


def balanced(members: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights with which every class has the same share of members and others, float64 (M,) and (N,).

    Scores differ from class to class, so that without them unlike shares alone would tell members from others. A class
    weighs as much as its numbers allow, and nothing where it has members or others only. All weights are 1 where the
    shares are the same anyway.

    Args:
        members: Labels, int64 (M,).
        others: Labels, int64 (N,).
    """
    size = int(torch.cat([members, others]).max()) + 1
    m, n = (torch.bincount(y, minlength=size).double() for y in (members, others))
    weight = m * n / (m + n).clamp_min(1)  # of a class: the inverse of the variance of what it tells
    found = []
    for y, count in ((members, m), (others, n)):
        each = (weight / count.clamp_min(1))[y]
        total = each.sum()
        found.append(
            torch.ones_like(each)
            if total > 0 and torch.allclose(each, each[:1])
            else each * len(y) / total.clamp_min(1e-300)
        )
    return found[0], found[1]


def tpr_at(
    members: np.ndarray, others: np.ndarray, rate: float, weights: tuple[Tensor, Tensor] | None = None
) -> Estimate:
    """Return the share of members above the threshold that at most a share ``rate`` of the others exceed."""
    mine, theirs = weights or (torch.ones(len(members)), torch.ones(len(others)))
    order = np.argsort(-others, kind="stable")
    above = np.cumsum(theirs.numpy()[order]) / float(theirs.sum())
    threshold = others[order][np.argmax(above > rate + 1e-9)]
    return proportion(torch.from_numpy(members > threshold), mine)
