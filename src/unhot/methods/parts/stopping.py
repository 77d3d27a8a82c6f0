"""When a run ends: as soon as a measure is low enough, or after a number of rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

PROBABILITY = "probability of the forgotten classes"


def probability(logits: Tensor, columns: list[int]) -> float:
    """Return the mean probability that logits (B, K) give to some output columns together."""
    return logits.detach().softmax(1)[:, columns].sum(1).mean().item()


@dataclass
class Stop:
    """The stopping rule: called with a measure before every round, it returns whether the run ends.

    Attributes:
        at_most: The run ends when the measure is no higher than this.
        rounds: The run ends after this many rounds at the latest.
        weights: Weights that are restored, when the run ends, to the state with the lowest measure; with them the run
            ends too when the measure is not finite.
        measure: Name of the measure, in words.
        reason: Why the run ended.
        value: The measure: the last one, or the lowest where there are weights.
        refused: Whether the last round was taken back.
    """

    at_most: float
    rounds: float = math.inf
    weights: Sequence[Tensor] = ()
    measure: str = PROBABILITY
    reason: str = "all steps done"
    value: float = math.inf
    refused: bool = False
    _kept: list[Tensor] = field(default_factory=list, repr=False)

    def __call__(self, measured: float, last: bool = False) -> bool:
        """Note the measure, and return whether the run ends; it does if this was the ``last`` round."""
        if self.weights and not math.isfinite(measured):
            self.reason = "not finite: rolled back"
        else:
            if not self.weights or measured < self.value:
                self.value, self._kept = measured, [w.detach().clone() for w in self.weights]
            if measured <= self.at_most:
                self.reason = f"{self.measure} at most {self.at_most}"
            elif self.rounds > 0 and not last:
                self.rounds -= 1
                return False
        self.back()
        return True

    def refuse(self, reason: str) -> None:
        """End the run without the last round: restore the weights to the state with the lowest measure before it."""
        self.reason, self.refused = reason, True
        self.back()

    def back(self) -> None:
        """Restore the weights to the state with the lowest measure that was noted."""
        for weight, state in zip(self.weights, self._kept, strict=False):  # none are kept of a run that began so
            weight.data.copy_(state)
