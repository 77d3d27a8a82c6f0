"""Measure: the declaration of one number of an audit, from which all that show, bound or explain it read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from unhot.records.base import Stored
from unhot.records.choices import Holder as Holder

Split = Literal["train", "test"]
Group = Literal["Output", "Features", "Attacks"]

WITHOUT_DIMENSION = ("fraction", "ratio", "distance", "silhouette")


class Decides(Stored):
    """How a measure takes part in the verdict.

    Attributes:
        holder: What somebody needs to take it: the outputs of a model, its features, or all of its weights.
        spread: Standard deviation of the value between models that were trained alike with other seeds, beyond what
            the draw of the images explains; of no account for a similarity.
        similarity: Whether it says how much of the original is left, instead of what can be recovered of the class.
            It decides where it is as high as the masked original's, and where no recovery tells that from retrained
            models.
    """

    holder: Holder
    spread: float = Field(default=0.0, ge=0)
    similarity: bool = False


class Measure(Stored):
    """One number that a metric or an attack gives for every model.

    Attributes:
        name: Its name in ``audit.json`` and in ``--require``.
        title: Its title in plain words.
        short: A shorter title for narrow columns; empty if the title will do.
        group: Its section of the page.
        sentence: One sentence that says what is compared with what.
        low: Lower bound of the value; None if there is none.
        high: Upper bound of the value; None if there is none.
        unit: Unit of the value.
        higher_is_better: Whether a higher value means that the class is forgotten or the rest retained; None if
            neither direction does.
        at_original: The value of the original model, if the definition fixes it.
        at_retrained: The expected value of a model that never saw the class, if it is known beforehand.
        beside_retrained: Whether the retrained model's value is the aim, which is known only by measuring it.
        found_in_original: Whether the original, which knows the class, must give a worse value than a model that never
            saw it (or another one, where neither way is better): else the measure would not see the class at all.
        note: A remark on how to read it.
        source: Who defined it, and what differs here.
        decides: Its part in the verdict; None if it has none.
        splits: The splits on which it is measured.
        features_only: Whether it reads features only, so that the masked original's value is the original's.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = Field(min_length=1)
    short: str = ""
    group: Group
    sentence: str = Field(min_length=1)
    low: float | None = None
    high: float | None = None
    unit: str = "fraction"
    higher_is_better: bool | None = None
    at_original: float | None = None
    at_retrained: float | None = None
    beside_retrained: bool = False
    found_in_original: bool = False
    note: str = ""
    source: str = "standard definition"
    decides: Decides | None = None
    splits: tuple[Split, ...] = Field(default=("test",), min_length=1)
    features_only: bool = False

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        low, high = self.bounds
        if not low < high or not all(low <= v <= high for v in (self.at_original, self.at_retrained) if v is not None):
            raise ValueError(f"the range of {self.name} is empty, or does not hold the value of a model")
        if self.found_in_original and self.higher_is_better is None and self.at_retrained is None:
            raise ValueError(f"{self.name} is found in the original, but has neither a direction nor at_retrained")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of the value; infinite if there is none."""
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high

    @property
    def column(self) -> str:
        """Its title as the head of a column."""
        return self.short or self.title[0].lower() + self.title[1:]

    @property
    def range(self) -> str:
        """Which values it can have, in words."""
        low, high = ("" if v is None else f"{round(v, 3):g}" for v in (self.low, self.high))
        values = f"{low} to {high}" if low and high else f"{low} upwards" if low else f"up to {high}" if high else ""
        return ", ".join(filter(None, (values, "" if self.unit in WITHOUT_DIMENSION else f"in {self.unit}")))

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        words = {True: "higher is better", False: "lower is better", None: "neither way is better by itself"}
        return words[self.higher_is_better]

    @property
    def reading(self) -> str:
        """Its range, and how to read it, in words: "0 to 1; lower is better"."""
        return "; ".join(filter(None, self._reading()))

    def _reading(self) -> Iterator[str]:
        yield self.range
        if self.at_original is not None:
            yield f"the original gives {self.at_original:g}"
        if self.at_retrained is not None:
            yield f"a model that never saw the class gives {self.at_retrained:g}"
        if self.beside_retrained:
            yield "compare with the retrained model's"
        yield self.note
        yield self.direction
