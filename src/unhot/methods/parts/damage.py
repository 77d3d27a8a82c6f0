r"""Damage: what a change of a model is estimated to cost the other classes, where there are no images of these.

On stand-ins x of the other classes (:mod:`unhot.methods.parts.stand_ins`) the masked original gives probabilities
:math:`\tilde p(x)`. If these are right, a model that answers :math:`a(x)` instead of :math:`\tilde a(x) = \arg\max
\tilde p(x)` loses

.. math::
    \ell = \operatorname{mean}_x \; \tilde p_{\tilde a(x)}(x) - \tilde p_{a(x)}(x)

of its accuracy. An answer that is as likely as before costs nothing, one that was ruled out costs all. A net that was
trained briefly is right far more often than it is confident, and its probabilities say little. Its logits are divided
by the temperature T at which it would be as confident of its samples as it is right about them, and a share 1 - T of
the loss is that of answers that changed at all, however likely they were.

Accuracy on real images falls by a share of the loss that depends on how near the stand-ins are to a decision boundary;
it was calibrated on nets of our own (``benchmarks/plain_nets.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from pydantic import JsonValue
from torch import Tensor

from unhot.methods.parts.batches import repeatedly
from unhot.methods.parts.data import Batch
from unhot.models.classifier import Classifier

LOSS = "loss_on_other_classes"  # the note of a record that holds a damage
USUAL, MOST = 0.15, 1.5  # accuracy lost on real images as a share of that on barely moved samples: usual, and greatest
LEAST = 0.01  # upper end where no answer changed: real images may be nearer to a boundary than every stand-in
SURE = 0.95  # confidence of samples from which on a net is not sharpened, however many it is right about


class Damage(NamedTuple):
    """Accuracy on the other classes that a change is estimated to cost.

    Attributes:
        estimate: What it usually costs.
        at_most: The upper end: what it cost at most in nearly all nets of the calibration.
    """

    estimate: float
    at_most: float

    def note(self, calibrated: bool = True) -> dict[str, JsonValue]:
        """Return it as a note of a record, which says so if nets of this kind were not among those."""
        rough: dict[str, JsonValue] = {} if calibrated else {"calibrated": False}
        return {LOSS: {"estimate": self.estimate, "at_most": self.at_most, **rough}}

    def within(self, budget: float) -> bool:
        """Return whether the upper end is within a budget; every damage is within a budget of 1."""
        return self.at_most <= budget


def damage(
    original: Tensor,
    changed: Tensor,
    columns: list[int],
    temperature: float = 1.0,
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
        temperature: T, above 0 and at most 1; see :func:`sharpening`.
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
    likely = (original.double() / temperature).index_fill(1, index, -torch.inf).softmax(1)
    before, after = likely.argmax(1), changed.index_fill(1, index, -torch.inf).argmax(1)
    ruled_out = likely.amax(1) - likely.gather(1, after[:, None]).squeeze(1)
    lost = (temperature * ruled_out + (1 - temperature) * (before != after)).mean().item()
    return Damage(min(usual * lost, 1.0), min(most * lost + least, 1.0))


def sharpening(samples: Batch, errors: float = 0.0) -> float:
    """Return the temperature, at most 1, at which a model is as confident of samples as it is right about them.

    Of n samples of which r are classified as their class, a share (r + 1) / (n + 2) is expected to be, but no more than
    0.95; and 0.95 where fewer than half are, since a model that does not know the class tells nothing by it.

    Args:
        samples: The samples.
        errors: Number of standard errors by which the model may be less confident than that without being sharpened.
    """
    logits = samples.logits.double()
    right = int((logits.argmax(1) == samples.y).sum())
    expected = min((right + 1) / (len(logits) + 2), SURE) if 2 * right >= len(logits) else SURE
    expected -= errors * (expected * (1 - expected) / len(logits)) ** 0.5
    low, high = 0.0, 1.0
    for _ in range(20):  # confidence falls as the temperature rises
        middle = (low + high) / 2
        unsure = (logits / middle).softmax(1).amax(1).mean() < expected
        low, high = (low, middle) if unsure else (middle, high)
    return high


@dataclass(frozen=True)
class HeldOut:
    """Stand-ins that a method does not train on, with the original's logits.

    Attributes:
        run: Returns the logits (N, K) of a model for them.
        logits: Those of the original.
        columns: The columns of the classes to forget.
        temperature: T, from samples of these classes.
    """

    run: Callable[[Classifier], Tensor]
    logits: Tensor
    columns: list[int]
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        original: Classifier,
        x: Tensor,
        columns: list[int],
        samples: Batch | None = None,
        trained: Sequence[str] = (),
    ) -> Self:
        """Evaluate the original, before it is changed.

        Args:
            original: The model.
            x: Inputs (N, C, H, W).
            columns: The columns of the classes to forget.
            samples: Samples of these classes; None where x are images of the others.
            trained: The only layers that will be changed, in the order they are called; any may be if there are none.
        """
        run, logits = repeatedly(original, x, trained)
        return cls(run, logits, columns, 1.0 if samples is None else sharpening(samples))

    def damage(self, model: Classifier) -> Damage:
        """Estimate what the changes of a model since then cost the other classes."""
        return damage(self.logits, self.run(model), self.columns, self.temperature)
