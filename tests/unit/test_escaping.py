from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhot.escaping import ENCODING_ERRORS, csv_cell, line, markdown, terminal


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("\x1b[31mred\x1b]0;title\x07", "\\u001b[31mred\\u001b]0;title\\u0007"),
        ("a\rb\x9b2Jc\x7f", "a\\rb\\u009b2Jc\\u007f"),
        ("gnp\u202efdp.exe", "gnp\\u202efdp.exe"),
        ("caf\udce9", "caf\\udce9"),  # a file name in latin-1
        ("tag\U000e0041", "tag\\udb40\\udc41"),
        ("Hündin 中 🐈 [bold] $x$\tb\nc", "Hündin 中 🐈 [bold] $x$\tb\nc"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, printed: str) -> None:
    assert terminal(text) == printed


@given(st.text() | st.dictionaries(st.text(), st.text()))
def test_json_is_still_the_same_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    assert json.loads(terminal(text)) == value
    assert json.loads(terminal(text).encode("ascii", ENCODING_ERRORS)) == value


@given(st.text())
def test_nothing_printed_acts_on_a_terminal(text: str) -> None:
    printed = terminal(text)
    assert not any(c < " " and c not in "\t\n" for c in printed)
    assert printed.encode().decode() == printed
    assert "\n" not in line(text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b\n\n# c", "a \\| b \\# c"),
        ("[x](http://y) `z` *w*", "\\[x\\](http\\://y) \\`z\\` \\*w\\*"),
        ("see www.x.org", "see www\\.x.org"),
        ("\x1b[31m", "\\\\u001b\\[31m"),
        ("<b>|*_`[x]\n#", "&lt;b&gt;\\|\\*\\_\\`\\[x\\] \\#"),
        ("plain (class 3), 0.5", "plain (class 3), 0.5"),
    ],
)
def test_nothing_is_markdown(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert str(csv_cell(text)).startswith("'")


@pytest.mark.parametrize("value", [-1, -0.5, None, "cat", "a=b", "1"])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) == value
