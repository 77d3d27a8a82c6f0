r"""Damage: what a change of a model is estimated to cost the other classes, where there are no images of these.

On stand-ins x of the other classes (:mod:`unhot.methods.parts.stand_ins`) the masked original gives probabilities
:math:`\tilde p(x)`. If these are right, a model that answers :math:`a(x)` instead of :math:`\tilde a(x) = \arg\max
\tilde p(x)` loses

.. math::
    \ell = \operatorname{mean}_x \; \tilde p_{\tilde a(x)}(x) - \tilde p_{a(x)}(x)

of its accuracy. An answer that is as likely as before costs nothing, one that was ruled out costs all. Accuracy on real
images falls by a share of that which depends on how near the stand-ins are to a decision boundary; it was calibrated on
nets of our own (``benchmarks/plain_nets.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from unhot.methods.parts.batches import logits_of
from unhot.models.classifier import Classifier

USUAL, MOST = 0.2, 2.0  # accuracy lost on real images as a share of that on barely moved samples: usual, and greatest
LEAST = 0.01  # upper end where no answer changed: real images may be nearer to a boundary than every stand-in


class Damage(NamedTuple):
    """Accuracy on the other classes that a change is estimated to cost.

    Attributes:
        estimate: What it usually costs.
        at_most: The upper end: what it cost at most in nearly all nets of the calibration.
    """

    estimate: float
    at_most: float

    def within(self, budget: float) -> bool:
        """Return whether the upper end is within a budget; every damage is within a budget of 1."""
        return self.at_most <= budget


def damage(
    original: Tensor,
    changed: Tensor,
    columns: list[int],
    usual: float = USUAL,
    most: float = MOST,
    least: float = LEAST,
) -> Damage:
    """Estimate what a change costs the other classes, from logits on held-out stand-ins of these.

    Args:
        original: Logits of the original, (N, K).
        changed: Logits of the changed model, (N, K); values that are not finite count as a loss of everything, and
            logits that are all those of the original as a loss of nothing.
        columns: The columns of the classes to forget, which count as masked in both.
        usual: What the loss on the stand-ins is multiplied by for the estimate.
        most: The same for the upper end.
        least: Added to the upper end. The defaults are for samples that were barely moved; of held-out images of the
            other classes themselves ``usual`` and ``most`` are 1.
    """
    if not changed.isfinite().all():
        return Damage(1.0, 1.0)
    if torch.equal(original, changed):
        return Damage(0.0, 0.0)
    index = torch.tensor(columns, device=original.device)
    likely = original.double().index_fill(1, index, -torch.inf).softmax(1)
    answers = changed.index_fill(1, index, -torch.inf).argmax(1, keepdim=True)
    lost = (likely.amax(1) - likely.gather(1, answers).squeeze(1)).mean().item()
    return Damage(min(usual * lost, 1.0), min(most * lost + least, 1.0))


@dataclass(frozen=True)
class HeldOut:
    """Stand-ins that a method does not train on, with the original's logits.

    Attributes:
        x: Inputs (N, C, H, W).
        logits: The original's logits for them, (N, K).
        columns: The columns of the classes to forget.
    """

    x: Tensor
    logits: Tensor
    columns: list[int]

    @classmethod
    def of(cls, original: Classifier, x: Tensor, columns: list[int]) -> Self:
        """Evaluate the original, before it is changed."""
        return cls(x, logits_of(original, x), columns)

    def damage(self, model: Classifier) -> Damage:
        """Estimate what the changes of a model since then cost the other classes."""
        return damage(self.logits, logits_of(model, self.x), self.columns)
