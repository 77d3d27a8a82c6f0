"""Requirement: a bound on a measure of the unlearned model, or on a verdict, as ``--require`` names it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol, get_args

from unhot.errors import OptionError, UnknownNameError
from unhot.evaluation.attacks import catalogue as attacks
from unhot.evaluation.catalogue import measures
from unhot.records.audit import Measurement, Verdict
from unhot.records.choices import Holder

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


HOLDERS = get_args(Holder)
# verdicts as --require names them, from the least to the most that was forgotten; "undecided" meets none
VERDICTS = {
    "hidden": "hidden at the output only",
    "short": "short of a retrained model",
    "retrained": "at the level of a retrained model",
    "beyond": "beyond a retrained model",
}


class Measured(Protocol):
    """What an audit found: an ``AuditRecord``, or what a deletion record holds of one."""

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The values of all models."""

    @property
    def verdict(self) -> Verdict:
        """The verdict for each holder."""


class Requirement(NamedTuple):
    """A bound on a measurement of the unlearned model, or on a verdict, which is a position in ``VERDICTS``."""

    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str, quick: bool = False) -> Requirement:
        """Read ``name<=bound``, or ``verdict>=retrained``, ``verdict.weights>=short`` and the like.

        Args:
            text: The requirement.
            quick: Whether the audit leaves out slow attacks, so that what they measure cannot be required.

        Raises:
            OptionError: It has another form, or the audit does not measure it.
            UnknownNameError: There is no such measurement.
        """
        if text.strip().startswith("verdict"):
            return cls._of_verdict(text)
        match = re.fullmatch(
            r"\s*([a-z][a-z0-9_]*)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", text
        )
        if match is None:
            raise OptionError(
                f"Expected --require 'name<=number' (or >=, <, >) or 'verdict.features>=retrained', got {text!r}."
            )
        if match[1] not in measures():
            raise UnknownNameError("measurement", match[1], measures())
        if quick and any(
            m.name == match[1] for entry in attacks.entries().values() if entry.slow for m in entry.measures
        ):
            raise OptionError(f"--quick leaves {match[1]} out, so it cannot be required. Leave --quick out.")
        return cls(match[1], match[2], float(match[3]))

    @classmethod
    def _of_verdict(cls, text: str) -> Requirement:
        found = re.fullmatch(rf"\s*(verdict(?:\.(?:{'|'.join(HOLDERS)}))?)\s*>=\s*({'|'.join(VERDICTS)})\s*", text)
        if found is None:
            raise OptionError(
                f"Expected --require 'verdict>=LEVEL' or 'verdict.HOLDER>=LEVEL', got {text!r}. LEVEL is "
                f"{', '.join(VERDICTS)}; HOLDER is {', '.join(HOLDERS)}."
            )
        return cls(found[1], ">=", list(VERDICTS).index(found[2]))

    @property
    def text(self) -> str:
        """The requirement as it is written."""
        level = list(VERDICTS)[int(self.bound)] if self.name.startswith("verdict") else str(self.bound)
        return f"{self.name}{self.sign}{level}"

    def unmet(self, found: Measured) -> str | None:
        """Say why the requirement is not met; None if it is."""
        if self.name.startswith("verdict"):
            return self._verdict_unmet(found.verdict)
        key = (self.name, "unlearned", "test")
        own = next((m for m in found.measurements if (m.name, m.subject, m.split) == key), None)
        if own is None or own.value is None:
            return f"{self.name} is absent: {'it was not measured' if own is None else own.absent_because}"
        if COMPARE[self.sign](own.value, self.bound):
            return None
        return f"{self.name} is {own.value:.4f}, required {self.sign} {self.bound:g}"

    def _verdict_unmet(self, verdict: Verdict) -> str | None:
        _, _, holder = self.name.partition(".")
        label = next((c.label for h, c in verdict.holders.items() if h == holder), verdict.label)
        wanted = list(VERDICTS.values())[int(self.bound) :]
        return None if label in wanted else f"{self.name} is {label!r}, required at least {wanted[0]!r}"
