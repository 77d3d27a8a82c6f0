"""``record.json`` of a deletion request: what was asked, what was done, with what effect, and what is left to do."""

from __future__ import annotations

import datetime
from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from unhot.records.audit import Measurement, Verdict
from unhot.records.base import Count, Record, Seconds, Sha256, Stored, canonical, check_once
from unhot.records.environment import Environment
from unhot.records.forget import MOST_TEXT, Recognised
from unhot.records.measure import Split
from unhot.records.model import ClassLabel


class Request(Stored):
    """What was asked, in the words of whoever answers the request.

    Attributes:
        id: The request's own name; it is unique in the chain of a model.
        reason: Why, in words.
        legal_basis: The rule that it is based on, in words.
        approved_by: The role of whoever approved it.
        note: Anything else.
        received: The day on which it came in.
    """

    id: str = Field(min_length=1, max_length=100)
    reason: str = Field(min_length=1, max_length=MOST_TEXT)
    legal_basis: str = Field(default="", max_length=MOST_TEXT)
    approved_by: str = Field(default="", max_length=MOST_TEXT)
    note: str = Field(default="", max_length=MOST_TEXT)
    received: datetime.date | None = None


class Run(Stored):
    """What was done: the run of the method.

    Attributes:
        digest: Digest of all that determines the result, as in the record of the run.
        samples: SHA-256 of the pixels of each image of the forgotten classes, and nothing else of it.
        read: What the method could read.
        not_read: What it could not read.
        retain_sha256: Digest of the retained images; None if there were none.
        guard_sha256: SHA-256 of the stored statistics; None if there were none.
        recognised: How many of the samples were classified as their class, before and after.
    """

    digest: Sha256
    method: str
    hyperparameters: dict[str, JsonValue]
    seed: int
    samples: tuple[Sha256, ...] = Field(min_length=1)
    read: tuple[str, ...]
    not_read: tuple[str, ...]
    retain_sha256: Sha256 | None = None
    retain_images: Count = 0
    guard_sha256: Sha256 | None = None
    recognised: tuple[Recognised, ...]
    stop_reason: str
    steps: Count
    seconds: Seconds
    environment: Environment


class Named(Stored):
    """A measure, and what it is called in words."""

    name: str
    title: str


class Evidence(Stored):
    """The effect: what one audit measured.

    Attributes:
        audit_sha256: SHA-256 of its ``audit.json``.
        classes: The classes that it measures: those of the request and, against the first model, of those before.
        original_sha256: Digest of the weights that the model is compared with.
        retrained_sha256: Digests of the weights of retrained models.
        data_sha256: Digest of the images of each split.
        images: Number of these.
        measures: The measures, in the order in which they are shown.
        measurements: The values of all models with their intervals, or why there is none.
        verdict: The verdict for each holder, with the thresholds.
        conclusions: The same in sentences.
        flags: Caveats in sentences.
        attacks: The settings of each attack.
    """

    audit_sha256: Sha256
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    original_sha256: Sha256
    retrained_sha256: tuple[Sha256, ...] = ()
    data_sha256: dict[Split, Sha256]
    images: dict[Split, Count]
    seed: int
    measures: tuple[Named, ...]
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    conclusions: tuple[str, ...]
    flags: tuple[str, ...]
    attacks: dict[str, dict[str, JsonValue]]
    unhot_version: str

    @model_validator(mode="after")
    def _every_measure_has_a_title(self) -> Self:
        check_once("measurement", ((m.name, m.subject, m.split) for m in self.measurements))
        if missing := {m.name for m in self.measurements} - {m.name for m in self.measures}:
            raise ValueError(f"{min(missing)} is measured, and has no title")
        return self


class Bound(Stored):
    """A bound that was set on what the first audit measured.

    Attributes:
        requirement: The bound, as ``--require`` takes it.
        unmet: Why it is not met; None if it is.
    """

    requirement: str
    unmet: str | None = None


class Remainder(Stored):
    """Something outside of the model that may still hold the forgotten classes.

    Attributes:
        what: What it is.
        sha256: Its digest, if it is known.
    """

    what: str
    sha256: Sha256 | None = None


class Place(Stored):
    """The place of a request in the chain of those on one model.

    Attributes:
        number: 1 for the first.
        previous: SHA-256 of the record of the request before; None for the first.
        ledger_sha256: SHA-256 of the last line of the ledger then, which may be of a request that was undone.
        first_model_sha256: Digest of the weights of the first model of the chain.
        drop: What this request cost: the fall in accuracy on the retained classes; None if it was not measured.
        drop_so_far: What all requests that are in force cost, added up; None if that of one is not known.
        drop_from_first: The same, measured against the first model; None if no audit compares with it.
    """

    number: int = Field(ge=1)
    previous: Sha256 | None = None
    ledger_sha256: Sha256 | None = None
    first_model_sha256: Sha256
    drop: float | None = None
    drop_so_far: float | None = None
    drop_from_first: float | None = None


class DeletionRecord(Record):
    """``record.json``: the predicate of the signed statement, in canonical form.

    Attributes:
        certified: When the record was made.
        classes: The classes that the model was made to forget.
        original_sha256: Digest of the weights before.
        result_sha256: Digest of the weights after.
        files: SHA-256 of each file of the bundle after.
        evidence: The audits.
        bounds: The bounds that were set; a signed test result goes with the record if there are any.
        not_shown: What the record does not prove.
        remaining: What is left to dispose of.
        page_sha256: SHA-256 of the page that was made of this record without this value.
        folder_signature_sha256: SHA-256 of ``model.sig`` beside the record, the signature of the bundle that
            model-signing checks; left out if there is none.
    """

    VERSION: ClassVar[int] = 1

    kind: Literal["deletion"] = "deletion"
    request: Request
    certified: AwareDatetime
    classes: tuple[ClassLabel, ...] = Field(min_length=1)
    original_sha256: Sha256
    result_sha256: Sha256
    files: dict[str, Sha256]
    place: Place
    run: Run
    evidence: tuple[Evidence, ...] = Field(min_length=1)
    bounds: tuple[Bound, ...] = ()
    not_shown: tuple[str, ...]
    remaining: tuple[Remainder, ...]
    unhot_version: str
    page_sha256: Sha256 | None = None
    folder_signature_sha256: Sha256 | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def unmet(self) -> tuple[Bound, ...]:
        """The bounds that are not met."""
        return tuple(bound for bound in self.bounds if bound.unmet is not None)

    def to_json(self) -> str:
        """Return the canonical text."""
        return canonical(self.model_dump(mode="json"))
