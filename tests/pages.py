"""Pages of the documentation, run as they stand: their commands, their Python, and the files and outputs they show.

A fenced block without a language holds commands, ``python`` holds code, ``text`` holds what was printed just before,
and a block with ``title="NAME"`` holds a file, which is written before. Numbers in what was printed may differ.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from unhot.cli import main

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
TRAIN = "unhot train --dataset digits --arch lenet5 --out model"


class Block(NamedTuple):
    """A fenced block: its language, the name of the file that it shows, and its text."""

    language: str
    title: str
    text: str


class Said(NamedTuple):
    """What a command printed on stdout and stderr."""

    out: str
    err: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def commands(text: str) -> Iterator[str]:
    """Give each command of a block as one line, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if argv := shlex.split(line, comments=True):
            yield shlex.join(argv)


def run(
    page: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    trained: Path | None = None,
    exits: Mapping[str, int] | None = None,
) -> dict[str, Said]:
    """Run a page in the working directory, and return what its commands printed.

    Args:
        page: The page.
        capsys: What is printed goes to it.
        trained: The bundle that is there already when the page trains its model, so that pages share one training.
        exits: Exit codes other than 0, by a part of the command.
    """
    said, last, known = dict[str, Said](), "", dict[str, Any]()
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text)
    for block in (b for b in blocks(page) if not b.title):
        if block.language == "python":
            exec(compile(block.text, str(page), "exec"), known)
            last = "".join(capsys.readouterr())
        elif block.language == "text":
            missing = [line for line in block.text.splitlines() if _masked(line) not in _masked(last)]
            assert not missing, f"{page.name} shows what was not printed: {missing}\nbut: {last}"
        else:
            assert not block.language, f"{page.name} has a block of {block.language} without a title"
            printed = {c: _run(c, capsys, trained, exits or {}) for c in commands(block.text)}
            said |= printed
            last = "".join(text for one in printed.values() for text in one)
    return said


def _run(command: str, capsys: pytest.CaptureFixture[str], trained: Path | None, exits: Mapping[str, int]) -> Said:
    if command == TRAIN and trained is not None:
        shutil.copytree(trained, "model")
        return Said("", "")
    program, *argv = shlex.split(command)
    if program == "pip":  # needs a network
        return Said("", "")
    assert program == "unhot", command
    code = main(argv)
    said = Said(*capsys.readouterr())
    expected = next((code for part, code in exits.items() if part in command), 0)
    assert code == expected, f"{command}\nexit code {code}: {said.err}"
    return said


def _masked(text: str) -> str:
    """Return a text with its numbers and its spaces made alike."""
    return re.sub(r"-?\d+(\.\d+)?", "#", " ".join(text.split()))
