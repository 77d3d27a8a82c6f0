"""The edge of the command line: whatever goes wrong inside, a person sees a sentence, and nothing that acts."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unhot import files
from unhot.cli.failure import MEMORY, described
from unhot.cli.output import table
from unhot.records.forget import ForgetRecord

Run = Callable[..., Any]


class OutOfMemoryError(RuntimeError):
    """Named as that of a device is."""


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (TypeError("unsupported operand"), 1, "unhot failed unexpectedly: TypeError: unsupported operand. Run again "),
        (AssertionError(), 1, "unhot failed unexpectedly: AssertionError. Run again with --traceback"),
        (RecursionError("maximum recursion depth exceeded"), 1, "nests too deeply"),
        (MemoryError(), 1, "There is not enough memory. Use fewer"),
        (OutOfMemoryError("CUDA out of memory"), 1, "There is not enough memory. Use fewer"),
        (OSError(errno.EACCES, "Permission denied", "x/y"), 2, "x/y: Permission denied. Check its permissions."),
        (OSError(errno.EISDIR, "Is a directory", "x"), 2, "x: Is a directory. Give a file"),
        (OSError(errno.EFBIG, "File too large", "x"), 2, "x: File too large. Raise the limit"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2, "Choose a shorter name."),
        (OSError(errno.EIO, "Input/output error", "x"), 1, "x: Input/output error."),
        (KeyError("\x1b[31m"), 1, "KeyError: '\\x1b[31m'"),
        (ValueError("\x1b[31m"), 1, "ValueError: \\u001b[31m"),
    ],
)
def test_every_error_is_a_sentence(
    unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, sentence: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(files, "check_new", fail)
    said = unhot("report", tmp_path, "--out", tmp_path / "r.html")
    assert said.code == code
    assert said.err.startswith("Error: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1
    shown = unhot("--traceback", "report", tmp_path, "--out", tmp_path / "r.html")
    assert "Traceback" in shown.err
    assert "\x1b" not in shown.err
    assert "Traceback" in unhot("report", tmp_path, "--out", tmp_path / "r.html", "--traceback").err


def test_memory_that_torch_cannot_have(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "check_new", lambda _: torch.empty(2**50))
    said = unhot("report", tmp_path, "--out", tmp_path / "r.html")
    assert (said.code, "There is not enough memory" in said.err) == (1, True)


def test_memory_that_a_library_needs() -> None:
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert described(error) == (MEMORY, 1)


@pytest.mark.parametrize(
    "call",
    [["forget", "--\x1b]0;x\x07"], ["\x1b[31m"], ["report", "\x1b[31m", "--out", "/x\x1b"], ["show", "\udce9\u202e"]],
)
def test_what_was_typed_is_printed_harmlessly(unhot: Run, call: list[str]) -> None:
    said = unhot(*call)
    assert said.code == 2
    assert "Error: " in said.err
    assert not any(c in said.err for c in "\x1b\x07\u202e\udce9")


def test_tables_hold_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table("[red]title\x1b[0m", ["name [b]", "value"], [["[bold]cat[/] :smile:", "\x1b[31m1"], ["a\nb", "[/]"]])
    out = capsys.readouterr().out
    for said in ("[red]title\\u001b[0m", "name [b]", "[bold]cat[/] :smile:", "\\u001b[31m1", "a\\nb", "[/]"):
        assert said in out
    assert "\x1b" not in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminals_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    names = tmp_path / os.fsdecode(b"caf\xe9-\xe4\xb8\xad")
    env = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for call in (["list", "methods"], ["report", names, "--out", tmp_path / "r.html"], ["show", "nhle-cwm"]):
        run = subprocess.run([sys.executable, "-m", "unhot", *call], env=env, capture_output=True, check=False)
        assert run.returncode == (2 if call[0] == "report" else 0), run.stderr
        assert b"Traceback" not in run.stderr
        assert b"unexpectedly" not in run.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    call = f"{sys.executable} -m unhot list methods | head -1"
    run = subprocess.run(["bash", "-c", call], capture_output=True, check=True)
    assert run.stdout.count(b"\n") == 1
    assert run.stderr == b""


@pytest.mark.parametrize(
    ("call", "streams", "code"),
    [
        ("list methods", ">&-", 0),
        ("list methods", "<&- >&- 2>&-", 0),
        ("list methods", "> /dev/full", 2),
        ("report nothing --out r.html", "2>&-", 2),
        ("report nothing --out r.html", ">&- 2>&-", 2),
        ("report nothing --out r.html", "2> /dev/full", 2),
    ],
)
def test_streams_that_are_closed_or_full(call: str, streams: str, code: int) -> None:
    run = subprocess.run(["bash", "-c", f"{sys.executable} -m unhot {call} {streams}"], capture_output=True)
    assert run.returncode == code, run.stderr
    assert b"unexpectedly" not in run.stderr


@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")
def test_names_that_are_not_utf_8(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xe9\x1b[31m")
    tree = shutil.copytree(folders / "tree", tmp_path / "tree")
    for path in [*tree.rglob("*.png")]:
        path.rename(path.with_name(odd + path.name))
    said = unhot("forget", bundle, "--class", 3, "--samples", tree / "train" / "3", "--out", tmp_path / "u")
    assert said.code == 0, said
    assert "Wrote" in said.out
    assert ForgetRecord.read(tmp_path / "u" / "record.json").samples.indices[0].startswith("\\udce9\x1b[31m")
    call = ["audit", "--original", bundle, "--unlearned", tmp_path / "u", "--class", 3, "--quick", "--data", tree]
    audited = unhot(*call, "--out", tmp_path / "audit")
    assert audited.code == 0, audited
    assert not any(c in said.out + said.err + audited.out + audited.err for c in "\x1b\udce9")
    (tree / "train" / "5").rename(tree / "train" / odd)
    refused = unhot("audit", *call[1:], "--out", tmp_path / "no")
    assert refused.code == 2
    assert "the class folders \\udce9\\u001b[31m have names that are not UTF-8" in refused.err
