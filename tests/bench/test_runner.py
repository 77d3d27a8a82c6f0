"""The runner does what is missing, once, and says what failed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock
from small_grid import SMALL, Quiet, models, run

from unhot import methods
from unhot.bench.backends import Inline, Local
from unhot.bench.grid import Grid, read_grid
from unhot.bench.runner import POLL_SECONDS, Runner
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig
from unhot.errors import DataError, UnhotWarning
from unhot.methods.base import Data, Method, Outcome
from unhot.methods.mask import Mask
from unhot.models.classifier import Classifier
from unhot.records.bench import Work
from unhot.registry import Registry
from unhot.runtime import Runtime

GridOf = Callable[[str], Grid]


def stamps(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")}


def copied(done: Path, tmp_path: Path) -> Store:
    shutil.copytree(done, tmp_path / "out")
    return Store(tmp_path / "out")


def test_models_are_trained_before_the_cells_that_need_them(grid_of: GridOf, tmp_path: Path) -> None:
    text = SMALL.replace("class = [1, 6]", "class = [1]").replace("epochs = 2", "epochs = 1")
    board = run(grid_of(text), Store(tmp_path / "out"))
    assert [t.split(":")[0] for t in board.begun] == [
        "lenet5 on digits, seed 0",
        "lenet5 on digits without 1, seed 1",
        "mask",
        "nhle-cwm",
    ]
    assert board.problems == []


def test_a_finished_grid_runs_nothing(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    store = copied(done, tmp_path)
    before = stamps(store.root)
    assert run(grid_of(SMALL), store).begun == []
    assert stamps(store.root) == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_runner_waits_for_what_another_has_and_does_what_that_one_leaves(
    grid_of: GridOf, done: Path, tmp_path: Path, finished: bool
) -> None:
    grid, store, other = grid_of(SMALL), copied(done, tmp_path), Store(tmp_path / "out")
    spec = grid.cells[0].spec
    record = store.cell(spec) / "record.json"
    kept = record.read_bytes()
    record.unlink()
    lock = other.claim(spec)
    assert lock is not None
    board = Quiet()
    runner = threading.Thread(target=Runner(grid, store, Inline(), WorkerConfig(threads=1), board).run)
    runner.start()
    runner.join(3 * POLL_SECONDS)
    assert runner.is_alive()
    assert board.begun == []
    if finished:
        record.write_bytes(kept)
    lock.release()
    runner.join(60)
    assert not runner.is_alive()
    assert board.begun == ([] if finished else [spec.title])
    assert Store(tmp_path / "out").done(spec)


def test_what_another_finishes_between_the_look_and_the_claim_is_not_done_again(
    grid_of: GridOf, done: Path, tmp_path: Path
) -> None:
    grid, store = grid_of(SMALL), copied(done, tmp_path)
    record = store.cell(grid.cells[0].spec) / "record.json"
    kept = record.read_bytes()
    record.unlink()

    class Late(Store):
        def claim(self, spec: Work, what: str = "work") -> FileLock | None:
            record.write_bytes(kept)
            return super().claim(spec, what)

    assert run(grid, Late(store.root)).begun == []


def test_another_row_runs_only_that_row(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    more = SMALL + '[[method]]\nname = "nhle-cwm"\noptions = { steps = 1 }\n'
    board = run(grid_of(more), copied(done, tmp_path))
    assert Counter(t.split(":")[0] for t in board.begun) == {"nhle-cwm": 2}


class Refuses(Mask):
    name: ClassVar[str] = "refuses"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        raise DataError("Not today.")


class Breaks(Mask):
    name: ClassVar[str] = "breaks"

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        return Outcome(model, str(1 // 0))


@pytest.fixture
def broken_methods(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    more: Registry[type[Method]] = Registry("method", {})
    for name in methods.catalogue:
        more.register(name, "as usual")(methods.get(name)) if name in ("mask", "nhle-cwm") else None
    more.register("refuses", "raises")(Refuses)
    more.register("breaks", "raises")(Breaks)
    monkeypatch.setattr(methods, "get", more.get)
    return


@pytest.mark.usefixtures("broken_methods")
def test_a_cell_that_fails_is_noted_and_tried_again(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    store = copied(done, tmp_path)
    grid = grid_of(SMALL + '[[method]]\nname = "refuses"\n[[method]]\nname = "breaks"\n')
    board = run(grid, store)
    assert sorted(board.problems) == [
        *["Not today."] * 2,
        *["ZeroDivisionError: integer division or modulo by zero"] * 2,
    ]
    failures = {c.spec.method: store.failure(c.spec) for c in grid.cells}
    assert failures["mask"] is None
    refused, broke = failures["refuses"], failures["breaks"]
    assert refused is not None
    assert broke is not None
    assert refused.traceback is None
    assert "1 // 0" in str(broke.traceback)
    assert len(run(grid, store).begun) == 4


def test_cells_of_a_model_that_cannot_be_trained_fail_with_its_reason(grid_of: GridOf, tmp_path: Path) -> None:
    grid = grid_of(SMALL.replace("epochs = 2", "epochs = 2, lr = 1e9"))
    store = Store(tmp_path / "out")
    board = run(grid, store)
    failure = store.failure(grid.cells[0].spec)
    assert failure is not None
    assert failure.error.startswith("lenet5 on digits, seed 0 could not be trained: Training diverged")
    assert len(board.problems) == len(grid.cells) + len(models(grid))


def test_processes_give_the_same_results_as_this_one(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    grid = grid_of(SMALL)
    board = run(grid, Store(tmp_path / "out"), Local(2))
    assert board.problems == []
    for cell in grid.cells:
        mine, theirs = Store(tmp_path / "out").record(cell.spec), Store(done).record(cell.spec)
        assert mine is not None
        assert theirs is not None
        assert mine.measurements == theirs.measurements
        assert mine.signals == theirs.signals


def command(grid: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "unhot", "bench", str(grid), "--out", str(out), "--no-timing", *more]


@pytest.mark.process
def test_two_runners_share_the_work(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL.replace("seed = [0]", "seed = [0, 1]"))
    call = command(path, tmp_path / "out")
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    store, grid = Store(tmp_path / "out"), read_grid(path)
    assert all(store.done(c.spec) for c in grid.cells)
    assert len([p for p in store.models.iterdir() if p.name.startswith("digits")]) == len(models(grid))
    before = stamps(tmp_path / "out" / "cells")
    assert run(grid, store).begun == []
    assert stamps(tmp_path / "out" / "cells") == before


@pytest.mark.process
def test_a_killed_run_is_completed_by_the_same_command(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL)
    call = command(path, tmp_path / "out")
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob("out/cells/*/record.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
    before = stamps(tmp_path / "out" / "cells")
    assert before
    again = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert all(stamps(tmp_path / "out" / "cells")[p] == t for p, t in before.items())
    assert len(list(tmp_path.glob("out/cells/*/record.json"))) == 4
    assert list(tmp_path.rglob("*.partial")) == []


def test_a_worker_that_is_killed_loses_only_what_it_was_doing(grid_of: GridOf, tmp_path: Path) -> None:
    import psutil

    grid, store, backend = grid_of(SMALL), Store(tmp_path / "out"), Local(2)
    killed: list[int] = []

    class Killer:
        def begin(self, task: object) -> None:
            workers = []
            for child in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):  # ended since it was listed, or a zombie
                    if "spawn_main" in " ".join(child.cmdline()):
                        workers.append(child)
            if workers and not killed and list(tmp_path.glob("out/models/digits*")):
                killed.append(workers[0].pid)
                workers[0].kill()

        def end(self, task: object, problem: str | None) -> None:
            assert problem is None

    from unhot.bench.runner import Runner
    from unhot.bench.worker import WorkerConfig

    assert Runner(grid, store, backend, WorkerConfig(threads=1), Killer()).run() == []
    assert killed
    assert all(store.done(c.spec) for c in grid.cells)


@pytest.mark.process
def test_workers_end_with_the_run_that_was_killed(tmp_path: Path) -> None:
    import psutil

    path = tmp_path / "grid.toml"
    path.write_text(SMALL.replace("epochs = 2", "epochs = 400"))
    with subprocess.Popen(command(path, tmp_path / "out", "--workers", "2"), stderr=subprocess.DEVNULL) as killed:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob("out/checkpoints/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = psutil.Process(killed.pid).children(recursive=True)
        assert len(workers) >= 2
        killed.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(workers, timeout=60)
    assert left == []


@pytest.mark.process
@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_ctrl_c_in_a_terminal_ends_the_workers_in_silence(tmp_path: Path, seconds: float) -> None:
    import psutil

    path = tmp_path / "grid.toml"
    path.write_text(SMALL)
    call, pipes = command(path, tmp_path / "out", "--workers", "2"), {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(call, stderr=subprocess.STDOUT, start_new_session=True, **pipes) as process:
        workers: list[psutil.Process] = []
        while not workers and process.poll() is None:
            time.sleep(0.02)
            workers = psutil.Process(process.pid).children()
        time.sleep(seconds)  # they import torch
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "\nInterrupted.\n")
    assert psutil.wait_procs(workers, timeout=60)[1] == []


class Unreachable:
    """A tracker whose server has gone."""

    def log(self, record: object) -> None:
        raise ConnectionError("no route to host")


def test_a_tracker_that_fails_loses_nothing(grid_of: GridOf, tmp_path: Path) -> None:
    from unhot.bench.backends import Inline
    from unhot.bench.runner import Runner
    from unhot.bench.worker import WorkerConfig

    text = SMALL.replace("class = [1, 6]", "class = [1]").replace("shots = 4", "shots = 4\nretrained = 0")
    grid, store = grid_of(text), Store(tmp_path / "out")
    with pytest.warns(UnhotWarning, match=r"store.*logged.*route"):
        assert Runner(grid, store, Inline(), WorkerConfig(threads=1), Quiet(), Unreachable()).run() == []
    assert all(store.done(c.spec) for c in grid.cells)
