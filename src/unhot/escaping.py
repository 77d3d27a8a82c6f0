"""Escaping of names and values that anybody may have chosen, wherever they are printed.

A class, a tensor or a file may have any name. On a terminal it must not move the cursor or reverse the text, in
Markdown it must not become a heading, a link or HTML, and in a spreadsheet it must not become a formula.
HTML is escaped by the templates of :mod:`unhot.report`.
"""

from __future__ import annotations

import codecs
import json
import re

ENCODING_ERRORS = "unhot.escape"  # the name of the handler, for ``open(errors=...)``

_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, without tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of text
    "\u2028\u2029\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # line separators and invisible characters
    "\ud800-\udfff"  # lone surrogates: bytes of a file name that are not UTF-8
    "]"
)
_HALF = re.compile("[\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def terminal(text: str) -> str:
    r"""Return text that is safe on a terminal: control characters are escaped as in JSON (``\u001b``).

    Line feeds stay. JSON text stays JSON of the same value.
    """
    return _UNSAFE.sub(lambda found: _as_json(found[0]), text)


def is_unicode(text: str) -> bool:
    """Return whether a name holds no lone surrogates, which stand for bytes of file names that are not UTF-8."""
    return _HALF.search(text) is None


def json_words(text: str) -> str:
    r"""Return JSON text in whose strings lone surrogates are escaped (``\udce9``), so that it can be UTF-8."""
    return _HALF.sub(lambda found: "\\" + _as_json(found[0]), text)


def line(text: str) -> str:
    """Return :func:`terminal` text on one line, for a cell of a table or a label of a plot."""
    return terminal(text).replace("\n", "\\n").replace("\t", " ")


def markdown(text: str) -> str:
    """Return text, on one line, in which nothing is Markdown or HTML."""
    text = terminal(re.sub(r"\s+", " ", text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)  # a _ within a word is no emphasis
    return text.replace("://", "\\://").replace("www.", "www\\.")  # bare addresses become links in many readers


def csv_cell(value: object) -> object:
    """Return a cell that a spreadsheet does not evaluate: text that looks like a formula gets a quote before it."""
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + line(value)


def _as_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _encoding_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _as_json(error.object[error.start : error.end]), error.end


codecs.register_error(ENCODING_ERRORS, _encoding_error)
