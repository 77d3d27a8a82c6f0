"""Forgotten: the classes that a request made a model forget, however its weights were changed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from unhot.models.head_edits.edit import HeadEdit
from unhot.records.base import check_once
from unhot.records.model import ClassLabel


class ForgottenEdit(HeadEdit):
    """Mark classes as forgotten; no weight is changed.

    Attributes:
        classes: The classes, in the order of the requests.
    """

    kind: Literal["forgotten"] = "forgotten"
    classes: tuple[ClassLabel, ...]

    @model_validator(mode="after")
    def _every_class_once(self) -> Self:
        check_once("forgotten class", (c.index for c in self.classes))
        return self
