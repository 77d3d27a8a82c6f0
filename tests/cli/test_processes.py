"""Ctrl-C and kill -9 at several moments: nothing half-written is left in the way, and the next run works."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unhot.cli import demo, main
from unhot.data import catalogue as datasets
from unhot.data.named import DIGITS
from unhot.models.bundle import load

Run = Callable[..., Any]
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("default::unhot.errors.SampleWarning")]

MOMENTS = ["Training a", "Forgetting the", "Training again"]


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process notes until it says ``text``."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the process ended without saying {text!r}")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing(start, tmp_path: Path, moment: str) -> None:
    process = start("demo", "--out", tmp_path / "demo")
    wait_for(process, moment)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.endswith("Interrupted.\n")
    assert "Traceback" not in err
    assert names(tmp_path) == []


# Ctrl-C at the moment in which a module is first imported
AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from unhot.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "module",
    ["unhot.cli.app", "torch", "torch.nn", "unhot.data.containers.folder", "sklearn.datasets", "unhot.models.nets"],
)
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str) -> None:
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--out", str(tmp_path / "m")]
    done = subprocess.run([sys.executable, "-c", AT_IMPORT, module, *call], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nInterrupted.\n")
    assert names(tmp_path) == []


def test_ctrl_c_that_a_library_wraps(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except BaseException as error:
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.setattr(datasets, "get", lambda _: dataclasses.replace(DIGITS, read=read))
    said = unhot("train", "--dataset", "digits", "--arch", "lenet5", "--out", tmp_path / "m")
    assert said == (130, "", "\nInterrupted.\n")


def test_ctrl_c_that_a_library_forgets(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        raise AttributeError("module 'numpy' has no attribute 'multiply'")  # its import went no further

    monkeypatch.setattr(datasets, "get", lambda _: dataclasses.replace(DIGITS, read=read))
    said = unhot("train", "--dataset", "digits", "--arch", "lenet5", "--out", tmp_path / "m")
    assert said == (130, "", "\nInterrupted.\n")


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.3])
def test_ctrl_c_twice(tmp_path: Path, seconds: float) -> None:
    call = ["demo", "--out", str(tmp_path / "demo")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "unhot", *call], **pipes) as process:
        wait_for(process, "Training a")
        process.send_signal(signal.SIGINT)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "\nInterrupted.\n")
    assert names(tmp_path) == []


def test_ctrl_c_in_a_callback(unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Last:
        def __del__(self) -> None:  # Python drops what is raised here, and says so
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    def read(*_: object) -> None:
        Last()
        time.sleep(100)
        pytest.fail("it went on")

    monkeypatch.setattr(datasets, "get", lambda _: dataclasses.replace(DIGITS, read=read))
    started, hook = time.monotonic(), sys.unraisablehook
    said = unhot("train", "--dataset", "digits", "--arch", "lenet5", "--out", tmp_path / "m")
    assert said == (130, "", "\nInterrupted.\n")
    assert time.monotonic() - started < 60
    assert sys.unraisablehook is hook


@pytest.mark.usefixtures("short_digits")
def test_a_killed_demo_is_cleared_by_the_next(
    start, unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "METHODS", {"unlearned": "mask"})  # of the second one, which takes less time so
    process = start("demo", "--out", tmp_path / "demo")
    wait_for(process, "Forgetting the")
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert names(tmp_path) == [".demo.partial"]
    assert unhot("demo", "--out", tmp_path / "demo").code == 0
    assert names(tmp_path) == ["demo"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_training_goes_on_and_ends_as_if_nothing_had_happened(
    start, unhot: Run, tmp_path: Path, how: signal.Signals
) -> None:
    call = ["train", "--dataset", "digits", "--arch", "lenet5", "--epochs", 12, "--lr", 0.05]
    process = start(*call, "--out", tmp_path / "m")
    for _ in range(1200):
        if (tmp_path / ".m.checkpoint").exists():
            break
        time.sleep(0.05)
    process.send_signal(how)
    err = process.communicate(timeout=60)[1]
    assert "Traceback" not in err
    goes_on = f"\nThe same command goes on from the last whole epoch, kept in {tmp_path / '.m.checkpoint'}.\n"
    assert err.endswith(f"{goes_on}\nInterrupted.\n" if how == signal.SIGINT else "")
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    left = names(tmp_path)
    assert (left == [".m.checkpoint"]) if how == signal.SIGINT else (".m.checkpoint" in left and "m" not in left)
    said = unhot(*call, "--out", tmp_path / "m")
    assert said.code == 0
    assert "Resuming from" in said.err
    assert unhot(*call, "--out", tmp_path / "n").code == 0
    assert load(tmp_path / "m").sha256() == load(tmp_path / "n").sha256()
    assert ".m.checkpoint" not in names(tmp_path)
    assert {"m", "n"} <= set(names(tmp_path))


@pytest.mark.usefixtures("short_digits")
def test_a_folder_in_one_that_cannot_be_written_is_trained_into(
    unhot: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *mode, **more: path != tmp_path and access(path, *mode, **more))
    said = unhot("train", "--dataset", "digits", "--arch", "lenet5", "--out", tmp_path / "m")
    assert said.code == 0
    assert "so that this run starts again if it is interrupted" in said.err
    assert names(tmp_path) == ["m"]


def test_the_callers_handler_of_ctrl_c_is_given_back() -> None:
    def mine(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGINT, mine)
    try:
        assert main(["--version"]) == 0
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def together(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes, as ``accelerate launch`` does."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unhot"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *map(str, command)], capture_output=True, text=True, timeout=300, env=env)


def test_of_two_processes_that_forget_one_writes(unhot: Run, bundle: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", "digits", "--device", "cpu", "--json"]
    ran = together(*call, "--out", tmp_path / "two")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)  # which one of them printed
    assert names(tmp_path) == ["two"]
    assert record["weights_sha256"] == unhot(*call, "--out", tmp_path / "one").json["weights_sha256"]


def test_of_two_processes_that_share_nothing_one_runs(
    unhot: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["guard", "collect", bundle, "--data", "digits", "--max-images", 20, "--out", tmp_path / "guard"]
    with monkeypatch.context() as second:
        second.setenv("WORLD_SIZE", "2")
        second.setenv("RANK", "1")
        assert unhot(*call) == (0, "", "")
        assert unhot("list", "methods") == (0, "", "")
        assert names(tmp_path) == []
        second.setenv("RANK", "0")
        assert unhot(*call).code == 0
    assert names(tmp_path) == ["guard"]
