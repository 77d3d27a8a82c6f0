"""Docstrings for the reference: formulas and cross-references of reStructuredText become code in Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

from unhot.cli.plain_text import formula


def markdown(text: str) -> str:
    """Return a docstring whose formulas and cross-references are code."""
    text = re.sub(r"^( *)\.\. math::\n((?:\1 +.*\n?|\n(?=\1 ))+)", _block, text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", lambda found: f"`{' '.join(formula(found[1]).split())}`", text)
    return re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", text)


def _block(found: re.Match[str]) -> str:
    return "".join(f"{found[1]}    {line}\n" for line in formula(found[2]).split("\n"))


class Markdown(Extension):
    """Rewrites every docstring when it is collected."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
