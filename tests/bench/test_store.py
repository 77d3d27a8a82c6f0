"""The store keeps whole results, and lets one process at a time do a piece of work."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from small_grid import SMALL, models

from unhot.bench.grid import Grid, read_grid
from unhot.bench.spec import FailureRecord
from unhot.bench.store import Store


def small(tmp_path: Path) -> Grid:
    (tmp_path / "grid.toml").write_text(SMALL)
    return read_grid(tmp_path / "grid.toml")


def test_what_was_run_is_done(done: Path, tmp_path: Path) -> None:
    grid, store = small(tmp_path), Store(done)
    assert all(store.done(c.spec) for c in grid.cells)
    assert all(store.model(s) is not None for s in models(grid))
    record = store.record(grid.cells[0].spec)
    assert record is not None
    assert record.spec == grid.cells[0].spec
    assert record.digest == grid.cells[0].spec.digest


def test_a_model_is_known_by_its_record_whatever_its_folder_is_called(done: Path, tmp_path: Path) -> None:
    grid = small(tmp_path)
    for i, folder in enumerate(sorted((done / "models").glob("digits*"))):
        shutil.copytree(folder, tmp_path / "pool" / f"net {i}")
    store = Store(tmp_path / "empty", models=tmp_path / "pool")
    assert all(store.model(s) is not None for s in models(grid))


def test_a_damaged_record_counts_as_not_done(done: Path, tmp_path: Path) -> None:
    grid = small(tmp_path)
    shutil.copytree(done, tmp_path / "out")
    store = Store(tmp_path / "out")
    spec = grid.cells[0].spec
    (store.cell(spec) / "record.json").write_text("{}")
    assert store.record(spec) is None
    assert not store.done(spec)


def test_a_result_takes_the_place_of_a_failure(done: Path, tmp_path: Path) -> None:
    grid, store = small(tmp_path), Store(tmp_path / "out")
    spec = grid.cells[0].spec
    store.add_failure(FailureRecord(digest=spec.digest, title=spec.title, spec=spec, error="why"))
    failure = store.failure(spec)
    assert failure is not None
    assert failure.error == "why"
    record = Store(done).record(spec)
    assert record is not None
    store.add_record(record)
    assert store.failure(spec) is None
    assert store.done(spec)


HOLDER = """
import sys, time
from pathlib import Path
from unhot.bench.grid import read_grid
from unhot.bench.store import Store
spec = read_grid(Path(sys.argv[1])).cells[0].spec
lock = Store(Path(sys.argv[2])).claim(spec)
print("held" if lock else "refused", flush=True)
time.sleep(60)
"""


def test_a_claim_is_exclusive_until_its_holder_ends_however_it_ends(tmp_path: Path) -> None:
    grid, store = small(tmp_path), Store(tmp_path / "out")
    call = [sys.executable, "-c", HOLDER, str(tmp_path / "grid.toml"), str(tmp_path / "out")]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        assert store.claim(grid.cells[0].spec) is None
        assert store.claim(grid.cells[1].spec) is not None
        holder.send_signal(signal.SIGKILL)
    lock = store.claim(grid.cells[0].spec)
    assert lock is not None
    lock.release()
