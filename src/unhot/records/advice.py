"""What ``unhot advise`` says: a method, why, what it needs, and which claims an audit can make afterwards."""

from __future__ import annotations

from unhot.records.base import Count, Record
from unhot.records.choices import Holder


class Advice(Record):
    """What ``unhot advise --json`` prints.

    Attributes:
        method: The method.
        why: Why this one.
        needs: What it needs, and what would help.
        others: The other methods that read no more than there is.
        claims: What an audit can find with what there is.
        no_claims: What it cannot.
    """

    holder: Holder
    samples: Count
    method: str
    why: tuple[str, ...]
    needs: tuple[str, ...]
    others: tuple[str, ...]
    claims: tuple[str, ...]
    no_claims: tuple[str, ...]
