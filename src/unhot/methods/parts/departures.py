"""How a method differs from its paper or released code."""

from __future__ import annotations

from typing import NamedTuple


class Departures(NamedTuple):
    """Differences, in whole sentences of Markdown; empty where there are none.

    Attributes:
        reconstruction: Our own choices, where no source was available.
        paper: Differences from the paper, as far as that is known.
        code: Differences from the released code, or from code in common use.
    """

    reconstruction: str = ""
    paper: str = ""
    code: str = ""

    def __str__(self) -> str:
        titles = ("Reconstruction", "Unlike the paper", "Unlike released code")
        return " ".join(f"{title}: {text}" for title, text in zip(titles, self, strict=True) if text)
