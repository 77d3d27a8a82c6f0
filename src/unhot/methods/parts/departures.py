"""What a method does otherwise than its paper or released code."""

from __future__ import annotations

from typing import NamedTuple


class Departures(NamedTuple):
    """What departs, in whole sentences, as Markdown; nothing where nothing does.

    Attributes:
        reconstruction: What is ours because nothing was available to go by.
        paper: What is not as in the paper, as far as that is known.
        code: What is not as in the released code, or code that circulates.
    """

    reconstruction: str = ""
    paper: str = ""
    code: str = ""

    def __str__(self) -> str:
        titles = ("Reconstruction", "Unlike the paper", "Unlike released code")
        return " ".join(f"{title}: {text}" for title, text in zip(titles, self, strict=True) if text)
