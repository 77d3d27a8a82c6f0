"""Work: how much of its work a method does within the time that it may take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unhot.errors import TooLongError, spelled

HALVINGS = 3  # of the work, at most: an eighth of it does little


def halvings(count: int) -> list[int]:
    """Return a number, its half, its quarter and its eighth."""
    return [max(1, count >> k) for k in range(HALVINGS + 1)]


@dataclass(frozen=True)
class Work:
    """An amount of work, and how long it takes.

    Attributes:
        images: Number of images to make.
        steps: Number of optimiser steps on the weights.
        image_seconds: Time of one image.
        step_seconds: Time of one step.
        tries: How often the steps may have to be done again from the start, at most.
    """

    images: int
    steps: int
    image_seconds: float
    step_seconds: float
    tries: int = 1

    @property
    def seconds(self) -> float:
        """The time that all of it takes with a single try."""
        return self.images * self.image_seconds + self.steps * self.step_seconds

    @property
    def longest(self) -> float:
        """The time that all of it takes with every try."""
        return self.seconds + (self.tries - 1) * self.steps * self.step_seconds

    def within(self, minutes: float) -> Work:
        """Return as much of it as the time suffices for, with every try: all, or a half, a quarter or an eighth.

        It is halved, and not cut to measure, so that the same machine does the same work again.

        Raises:
            TooLongError: The time does not suffice for an eighth.
        """
        for images, steps in zip(halvings(self.images), halvings(self.steps), strict=True):
            part = replace(self, images=images, steps=steps)
            if part.longest <= 60 * minutes:
                return part
        error = TooLongError(
            f"Even an eighth of the work may take {'' if self.step_seconds else 'more than '}{part.longest / 60:.2g} "
            f"minutes on this device, and minutes={minutes:g} allows less. Allow more, use a GPU, or choose "
            "method='nhle-cwm'."
        )
        raise spelled(spelled(error, "minutes=", "-o minutes="), "method='nhle-cwm'", "--method nhle-cwm")
