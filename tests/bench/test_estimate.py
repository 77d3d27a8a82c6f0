"""Estimates count what will be computed, and take what is known of the time of methods over a guess."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_grid import SMALL

from unhot.bench.estimate import FITS, PASSES, RUNS, Estimate, Estimator, Net
from unhot.bench.grid import Grid, read_grid
from unhot.bench.runner import left
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig

NET = Net(image=0.003, fit=0.5)
IMAGES = 1_797  # of digits, 1,438 of them to train on


@pytest.fixture
def estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Estimate]:
    """Estimate what a store lacks of a grid, of nets whose speed is given."""
    monkeypatch.setattr(Estimator, "_net", lambda *_: NET)

    def estimate(store: Store, text: str = SMALL, timing: bool = False) -> Estimate:
        grid = whole(tmp_path, text)
        return Estimator(grid, store, WorkerConfig()).of(left(grid, store), timing)

    return estimate


def whole(folder: Path, text: str = SMALL) -> Grid:
    path = folder / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def test_models_beside_the_unlearned_one_are_measured_once_for_a_request(estimated, tmp_path: Path) -> None:
    found = estimated(Store(tmp_path / "empty"))
    of_a_model = IMAGES * NET.image / 3 + FITS * NET.fit
    assert found.audits == pytest.approx(2 * (3 + 1) * of_a_model)  # two classes, two methods, one retrained model
    forgotten = 4 + 4 * 2 * PASSES  # from four images: by the mask, and by two steps
    assert found.forgetting == pytest.approx(2 * forgotten * NET.image)
    assert found.guessed == {"mask", "nhle-cwm"}
    assert sum(found.tasks.values()) == pytest.approx(found.training + found.forgetting + found.audits)
    assert found.total(2) == pytest.approx(sum(found.tasks.values()) / 2)


def test_methods_are_timed_several_times_by_one_process(estimated, tmp_path: Path) -> None:
    found = estimated(Store(tmp_path / "empty"), timing=True)
    assert found.timing == pytest.approx(RUNS * found.forgetting / 2)  # on one of two classes
    assert found.total(2) - found.timing == pytest.approx(sum(found.tasks.values()) / 2)


def test_what_a_method_took_is_known_from_cells_that_are_done(estimated, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    grid, store = whole(tmp_path), Store(tmp_path / "out")
    first, second = (c.spec for c in grid.cells if c.spec.method == "nhle-cwm")
    known = store.record(first)
    assert known is not None
    shutil.rmtree(store.cell(second))
    found = estimated(Store(tmp_path / "out"))
    assert list(found.tasks) == [second.digest]
    assert found.forgetting == pytest.approx(known.seconds)
    assert (found.guessed, found.training) == (set(), 0)


def test_a_full_audit_and_requests_in_sequence_take_longer(estimated, tmp_path: Path) -> None:
    quick = estimated(Store(tmp_path / "empty"))
    full = estimated(Store(tmp_path / "empty"), SMALL.replace("shots = 4", 'shots = 4\naudit = "full"'))
    assert full.audits > 1.5 * quick.audits
    several = SMALL.replace("[1, 6]", "[[1, 6]]")
    at_once = estimated(Store(tmp_path / "empty"), several)
    sequence = estimated(Store(tmp_path / "empty"), several.replace("shots = 4", "shots = 4\nin_sequence = true"))
    assert sequence.audits > at_once.audits
    assert sequence.forgetting == at_once.forgetting == quick.forgetting


def test_a_net_is_measured_where_it_will_run(tmp_path: Path) -> None:
    grid, store = whole(tmp_path), Store(tmp_path / "empty")
    found = Estimator(grid, store, WorkerConfig()).of(left(grid, store), timing=True)
    assert min(found.training, found.forgetting, found.audits, found.timing) > 0
    assert found.audits > found.training  # two epochs of a LeNet-5
