"""Docstrings for the reference: formulas and cross-references of reStructuredText become code in Markdown."""

from __future__ import annotations

import inspect
import re
from typing import Any

from griffe import Docstring, DocstringSectionAttributes, DocstringSectionText, Extension, Object

from unhot.cli.plain_text import formula


def markdown(text: str) -> str:
    """Return a docstring whose formulas and cross-references are code."""
    text = re.sub(r"^( *)\.\. math::\n((?:\1 +.*\n?|\n(?=\1 ))+)", _block, text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", lambda found: f"`{' '.join(formula(found[1]).split())}`", text)
    return re.sub(r":[a-z]+:`~?([^`]*)`", r"`\1`", text)


def _block(found: re.Match[str]) -> str:
    return "".join(f"{found[1]}    {line}\n" for line in formula(found[2]).split("\n"))


def prose(item: object) -> str:
    """Return the text of a docstring before its sections."""
    parts = Docstring(inspect.getdoc(item) or "").parse("google", warnings=False)
    text = "\n\n".join(part.value for part in parts if isinstance(part, DocstringSectionText))
    return markdown(text.split("Source:")[0].strip())


def fields(item: object) -> dict[str, str]:
    """Return what a docstring says of attributes, by name."""
    parts = Docstring(inspect.getdoc(item) or "").parse("google", warnings=False)
    found = [a for part in parts if isinstance(part, DocstringSectionAttributes) for a in part.value]
    return {a.name: markdown(" ".join(a.description.split())) for a in found}


class Markdown(Extension):
    """Rewrites every docstring when it is collected."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
