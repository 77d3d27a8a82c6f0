"""Membership inference: can images of the forgotten class that were trained on be told from others of it?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from sklearn.metrics import roc_curve
from torch import Tensor
from torch.nn.functional import log_softmax

from unhot.evaluation.metric import Absent, Attack, Case, Finding, Measure
from unhot.evaluation.stats import Estimate, area, proportion
from unhot.record import Curve

LEAST = 20
FLOOR = 1e-12  # probabilities below are taken for this, so that logarithms stay finite


class Membership(Attack):
    """Scores of forgotten images of the train split (members) against those of the test split.

    Three scores, each higher for members: minus the loss, the confidence, and minus the modified entropy. The main one
    is the modified entropy, which still speaks when the class has been cut out of the output. 0.5 is chance, and what a
    retrained model gives; far below it is a leak too.

    Source: Song, Mittal: Systematic evaluation of privacy risks of machine learning models, USENIX Security 2021,
    equation 8 (modified entropy); Carlini et al.: Membership inference attacks from first principles, S&P 2022.
    """

    measures: ClassVar[dict[str, Measure]] = {
        "mia_auc": Measure(None),
        "mia_auc_loss": Measure(None),
        "mia_auc_confidence": Measure(None),
        "mia_tpr_at_1pct_fpr": Measure(False),
        "mia_tpr_at_01pct_fpr": Measure(False),
    }

    def run(self, case: Case) -> Finding:
        """Attack."""
        members, others = self._scores(case, "train"), self._scores(case, "test")
        m, n = len(members["entropy"]), len(others["entropy"])
        if min(m, n) < LEAST:
            raise Absent(f"only {m} train and {n} test images of the forgotten classes, {LEAST} of each are needed")
        main = members["entropy"], others["entropy"]
        estimates: dict[str, Estimate | str] = {
            "mia_auc": area(*main),
            "mia_auc_loss": area(members["loss"], others["loss"]),
            "mia_auc_confidence": area(members["confidence"], others["confidence"]),
        }
        for name, rate in (("mia_tpr_at_1pct_fpr", 0.01), ("mia_tpr_at_01pct_fpr", 0.001)):
            few = f"a false positive rate of {rate:g} needs {round(1 / rate)} test images of the class, there are {n}"
            estimates[name] = tpr_at(*main, rate) if n * rate >= 1 else few
        fpr, tpr, _ = roc_curve(np.r_[np.ones(m), np.zeros(n)], np.r_[main])
        curve = Curve(name="roc", subject=case.subject, run=case.run, x=tuple(fpr.tolist()), y=tuple(tpr.tolist()))
        return Finding(estimates, (curve,))

    @staticmethod
    def _scores(case: Case, split: str) -> dict[str, np.ndarray]:
        view = case.on("train" if split == "train" else "test")
        logits, y = view.logits[view.is_forget].double(), view.y[view.is_forget]
        p = log_softmax(logits, dim=1).exp()
        return {
            "loss": p.gather(1, y[:, None]).squeeze(1).clamp_min(FLOOR).log().numpy(),
            "confidence": p.amax(1).numpy(),
            "entropy": -modified_entropy(p, y).numpy(),
        }


def modified_entropy(p: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`-(1-p_y) \log p_y - \sum_{k \ne y} p_k \log(1-p_k)`, (N,), nats.

    Args:
        p: Probabilities (N, K).
        y: Labels, int64 (N,).
    """
    own = p.gather(1, y[:, None]).squeeze(1)
    others = (p * (1 - p).clamp_min(FLOOR).log()).scatter(1, y[:, None], 0.0).sum(1)
    return -(1 - own) * own.clamp_min(FLOOR).log() - others


def tpr_at(members: np.ndarray, others: np.ndarray, rate: float) -> Estimate:
    """Return the share of members above the threshold that at most a share ``rate`` of the others exceed."""
    allowed = int(rate * len(others))
    threshold = np.sort(others)[::-1][allowed]
    return proportion(torch.from_numpy(members > threshold))
