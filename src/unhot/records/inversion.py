"""The header of a file of inverted images."""

from __future__ import annotations

from typing import Literal

from unhot.records.base import Count, Record


class InversionInfo(Record):
    """The header of a file of inverted images.

    Attributes:
        model_sha256: SHA-256 of the weights and buffers of the model that they were inverted from.
        images: Number of images.
        descent: Number of steps in which each was made.
    """

    kind: Literal["inverted"] = "inverted"
    model_sha256: str
    images: Count
    descent: Count
