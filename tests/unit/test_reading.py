from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unhot.errors import InputError
from unhot.reading import NESTING, parse_json, parse_toml, read_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


@given(PLAIN)
def test_json_reads_back_as_it_was(value: object) -> None:
    assert parse_json(json.dumps(value), "x") == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nests deeper than 64 levels"),
        ("[" * (NESTING + 1) + "]" * (NESTING + 1), "nests deeper than 64 levels"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nests deeper than 64 levels"),
        ("1" * 5_000, "Exceeds the limit"),
        (str(2**64), "an integer of more than 64 bits"),
        (f'{{"a": [-{2**64}]}}', "an integer of more than 64 bits"),
        ("1e999", "a number that is not finite"),
        ("[NaN]", "NaN, which is not a JSON number"),
        ("-Infinity", "-Infinity, which is not a JSON number"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' comes twice"),
        ('"\\ud800"', "not valid Unicode"),
        ('{"\\udfff": 1}', "not valid Unicode"),
        ("", "Expecting value"),
        ('"', "Unterminated string"),
    ],
)
def test_json_that_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"^x.json is not valid JSON: .*{why}"):
        parse_json(text, "x.json")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = " + "[" * 5_000, "nests deeper than 64 levels"),
        ("a = " + "[" * 80 + "]" * 80, "nests deeper than 64 levels"),
        ("a" + ".a" * 80 + " = 1", "nests deeper than 64 levels"),
        ("a = " + "1" * 5_000, "Exceeds the limit"),
        ("a = 0x" + "f" * 5_000, "an integer of more than 64 bits"),
        ("a = inf", "a number that is not finite"),
        ("a = 1\na = 2", "Cannot overwrite a value"),
    ],
)
def test_toml_that_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"^x.toml is not valid TOML: .*{why}"):
        parse_toml(text, "x.toml")


@pytest.mark.parametrize("content", [b"gr\xc3\xbcn", b"\xef\xbb\xbfgr\xc3\xbcn"])
def test_text_is_utf_8_whatever_the_locale(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    (tmp_path / "x").write_bytes(content)
    assert read_text(tmp_path / "x") == "grün"


def test_files_that_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"gr\xfcn")
    (tmp_path / "long").write_bytes(b"x" * 11)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, why in (
        (tmp_path / "pipe", "pipe is not a regular file"),  # reading it would wait for ever
        (Path("/dev/zero"), "/dev/zero is not a regular file"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "none", "none cannot be read: No such file"),
        (tmp_path / "circle", "circle cannot be read: Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (tmp_path / "latin", "latin is not text in UTF-8: .* at byte 2"),
        (tmp_path / "long", "long is larger than 10 bytes"),
    ):
        with pytest.raises(InputError, match=why):
            read_text(path, limit=10)
