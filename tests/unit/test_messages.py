"""All that is said where something is wrong, in one file, so that its wording is seen and improved in one place."""

from __future__ import annotations

from messages import GOLDEN, messages


def test_the_messages_are_those_of_the_golden_file() -> None:
    assert GOLDEN.read_text() == messages(), "read the difference, and write it with: make messages"
