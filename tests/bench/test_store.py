"""The store keeps whole results, and lets one process at a time do a task."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_grid import SMALL, models

from unhot.bench.grid import Grid, read_grid
from unhot.bench.results import collect
from unhot.bench.store import BUNDLE_FILES, Store
from unhot.errors import ModelWarning, OutputError
from unhot.records.bench import FailureRecord


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


@pytest.mark.parametrize("missing", BUNDLE_FILES)
def test_a_folder_that_lacks_a_file_of_a_bundle_is_no_model(done: Path, tmp_path: Path, missing: str) -> None:
    """It may be on its way there, by a copy from elsewhere: it is one as soon as it is whole."""
    spec = models(small(tmp_path))[0]
    bundle = Store(done).model(spec)
    assert bundle is not None
    copy = shutil.copytree(bundle, tmp_path / "pool" / "net")
    (copy / missing).unlink()
    store = Store(tmp_path / "empty", models=tmp_path / "pool")
    assert store.model(spec) is None
    assert not store.done(spec)
    shutil.copy(bundle / missing, copy / missing)
    assert store.model(spec) == copy


def test_a_damaged_record_counts_as_not_done(done: Path, tmp_path: Path) -> None:
    grid = small(tmp_path)
    shutil.copytree(done, tmp_path / "out")
    store = Store(tmp_path / "out")
    spec = grid.cells[0].spec
    (store.cell(spec) / "record.json").write_text("{}")
    assert store.record(spec) is None
    assert not store.done(spec)


def test_a_record_that_knew_no_holders_is_done_and_written_as_it_was(done: Path, tmp_path: Path) -> None:
    grid = small(tmp_path)
    shutil.copytree(done, tmp_path / "out")
    store = Store(tmp_path / "out")
    spec = grid.cells[0].spec
    path = store.cell(spec) / "record.json"
    raw = json.loads(path.read_text())
    assert set(raw.pop("verdicts")) == {"outputs", "features", "weights"}
    path.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n")
    record = store.record(spec)
    assert record is not None
    assert (record.verdicts, record.verdict) == ({}, raw["verdict"])
    assert record.to_json() == path.read_text()
    older, newer = collect(grid, store).rows[0], collect(grid, Store(done)).rows[0]
    assert older == newer.model_copy(update={"verdicts": {}})
    assert newer.verdicts["features"] == newer.verdict


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


def test_what_another_has_claimed_is_not_waited_for(tmp_path: Path) -> None:
    """There is other work that nobody has."""
    spec = small(tmp_path).cells[0].spec
    one, other = Store(tmp_path / "out"), Store(tmp_path / "out")
    lock = one.claim(spec)
    assert lock is not None
    started = time.monotonic()
    assert other.claim(spec) is None
    assert time.monotonic() - started < 1.5
    timing = other.claim(spec, "timing")  # is another task
    assert timing is not None
    lock.release()
    again = other.claim(spec)
    assert again is not None
    again.release()
    timing.release()


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


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("file", ["record.json", "bundle.json", "model.safetensors"])
@pytest.mark.parametrize("harm", [truncated, Path.unlink])
def test_a_damaged_model_is_moved_aside_and_trained_again(
    done: Path, tmp_path: Path, file: str, harm: Callable[[Path], None]
) -> None:
    shutil.copytree(done, tmp_path / "out")
    grid, store = small(tmp_path), Store(tmp_path / "out")
    spec = models(grid)[0]
    folder = store.model(spec)
    assert folder is not None
    harm(folder / file)
    fresh = Store(tmp_path / "out")
    assert not fresh.done(spec)
    kept = {p.name for p in folder.iterdir()}
    whole = done / "models" / folder.name
    with pytest.warns(ModelWarning, match=r"damaged.*moved.*0"):
        fresh.add_model(spec, {p.name: p.read_bytes() for p in whole.iterdir()})
    assert Store(tmp_path / "out").model(spec) == folder
    assert {p.name for p in folder.with_name(f"{folder.name}.damaged-0").iterdir()} == kept


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"written.*directory.*place"):
        Store(tmp_path / "out").claim(small(tmp_path).cells[0].spec)
