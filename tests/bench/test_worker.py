"""What a worker measures is what the pieces measure when they are called by hand."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_grid import SMALL, run
from torch.nn.functional import cosine_similarity

import unhot
from unhot.bench.grid import Grid
from unhot.bench.results import track
from unhot.bench.signals import signals
from unhot.bench.store import Store
from unhot.bench.worker import Worker, WorkerConfig
from unhot.errors import DataError
from unhot.methods.nhle_cwm import NhleCwm
from unhot.methods.nhle_guard import NhleGuard
from unhot.runtime import Runtime
from unhot.statistics import ClassStatistics

GridOf = Callable[[str], Grid]


@pytest.mark.filterwarnings("ignore::unhot.errors.SampleWarning")  # two steps without a cut forget nothing
def test_a_cell_is_forget_and_audit_called_by_hand(grid_of: GridOf, done: Path) -> None:
    grid, store = grid_of(SMALL), Store(done)
    cell = next(c for c in grid.cells if c.spec.method == "nhle-cwm" and c.spec.classes == (6,))
    record = store.record(cell.spec)
    assert record is not None
    original, retrained = (unhot.load(str(store.model(s))) for s in cell.spec.training)
    train, test = unhot.load_named("digits", train=True), unhot.load_named("digits", train=False)
    samples = unhot.draw(train, classes=[6], shots=4, seed=0)
    result = unhot.forget(original, samples, method=NhleCwm(steps=2), seed=0)
    audit = unhot.audit(
        original=original,
        unlearned=result.classifier,
        classes=[6],
        test=test,
        train=train,
        retrained=retrained,
        quick=True,
    )
    assert record.measurements == audit.record.measurements
    assert record.verdict == audit.record.verdict.label
    assert record.verdicts == {holder: found.label for holder, found in audit.record.verdict.holders.items()}
    assert set(record.verdicts) == {"outputs", "features", "weights"}
    assert record.steps == result.record.cost.steps
    assert [c.name for c in record.names] == ["6"]
    uncut = unhot.forget(original, samples, method=NhleCwm(steps=2, cut="none"), seed=0).classifier
    asked = test.where(test.y == 6)
    x = asked.inputs(torch.arange(len(asked)), original.input, torch.device("cpu"))
    with torch.no_grad():
        right = (uncut.logits(x).argmax(1) == 6).float().mean().item()
        cosine = cosine_similarity(uncut.features(x), original.features(x)).mean().item()
    assert record.before_cut["forget_accuracy"] == pytest.approx(right)
    assert record.before_cut["feature_cosine"] == pytest.approx(cosine, abs=1e-5)


def test_the_original_drifts_nowhere(done: Path) -> None:
    model = unhot.load(str(next((done / "models").glob("digits-lenet5-seed0-*"))))
    samples = unhot.draw(unhot.load_named("digits", train=True), classes=[6], shots=4)
    found = signals(model, model, samples, Runtime())
    assert found["drift_nats"] == pytest.approx(0.0, abs=1e-6)
    assert found["feature_cosine"] == pytest.approx(1.0)
    assert found["probability_left"] > 0.5  # though nothing is noted as forgotten


def test_signals_are_of_the_samples_before_the_cut(done: Path) -> None:
    grid_file = done.parent / "grid.toml"
    from unhot.bench.grid import read_grid

    records = {c.spec.method: Store(done).record(c.spec) for c in read_grid(grid_file).cells if c.spec.classes == (1,)}
    masked, tuned = records["mask"], records["nhle-cwm"]
    assert masked is not None
    assert tuned is not None
    # the mask alone changes nothing before the cut, so no choice of settings can mistake it for forgetting
    assert masked.signals["drift_nats"] == pytest.approx(0.0, abs=1e-6)
    assert masked.signals["probability_left"] > tuned.signals["probability_left"]
    assert tuned.signals["drift_nats"] > 0


def test_a_sequence_forgets_one_class_after_another(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    text = SMALL.replace("class = [1, 6]", "class = [[1, 6]]").replace("[fixed]", "[fixed]\nin_sequence = true")
    grid = grid_of(text.replace('"digits"', '"digits"\nretrained = 0'))
    store = Store(tmp_path / "out", models=done / "models")
    assert run(grid, store).problems == []
    record = store.record(next(c.spec for c in grid.cells if c.spec.method == "nhle-cwm"))
    assert record is not None
    assert len(record.sequence) == 2
    final = {m.name: m.value for m in record.measurements if (m.subject, m.split) == ("unlearned", "test")}
    for name, value in record.sequence[-1].items():
        assert value == pytest.approx(final[name])
    assert record.steps == 4


def test_all_images_of_a_class_can_be_given(grid_of: GridOf, done: Path, tmp_path: Path) -> None:
    grid = grid_of(SMALL.replace("shots = 4", 'shots = "all"').replace("class = [1, 6]", "class = [1]"))
    store = Store(tmp_path / "out", models=done / "models")
    assert run(grid, store).problems == []
    record = store.record(next(c.spec for c in grid.cells if c.spec.method == "nhle-cwm"))
    assert record is not None
    assert track(record.spec.method, record.uses, record.spec.shots) == "all forget data"


def test_a_timing_is_a_multiple_of_one_pass(grid_of: GridOf, done: Path) -> None:
    cell = next(c for c in grid_of(SMALL).cells if c.spec.method == "nhle-cwm")
    original = Store(done).model(cell.spec.original)
    assert original is not None
    found = Worker(WorkerConfig(threads=1)).timing(cell.spec, cell.src, original)
    assert found.cell == cell.spec.digest
    assert found.steps == 2
    assert 0 < found.floor_seconds < found.forget_seconds
    assert found.train_seconds is not None
    assert found.train_seconds > found.forget_seconds


def test_a_model_that_came_as_bytes_is_the_model_on_disk(done: Path) -> None:
    folder = next((done / "models").glob("digits-lenet5-seed0-*"))
    worker = Worker(WorkerConfig())
    cell_model = worker._model(worker._folder({p.name: p.read_bytes() for p in folder.iterdir()}))
    assert cell_model.sha256() == unhot.load(str(folder)).sha256()
    unpacked = worker._folder({p.name: p.read_bytes() for p in folder.iterdir()})
    assert unpacked.is_dir()
    del worker
    gc.collect()
    assert not unpacked.exists()


def test_a_guard_is_collected_from_the_training_images_of_the_original(grid_of: GridOf, done: Path) -> None:
    text = SMALL.replace("class = [1, 6]", "class = [6]")
    guarded = grid_of(text.replace('name = "nhle-cwm"\noptions = { steps = 2 }', 'name = "nhle-guard"\nguard = true'))
    (cell,) = (c for c in guarded.cells if c.spec.guarded)
    store = Store(done)
    original, retrained = (store.model(s) for s in cell.spec.training)
    assert original is not None
    assert retrained is not None
    record = Worker(WorkerConfig(threads=1)).cell(cell.spec, cell.src, cell.options, original, retrained)
    assert record.uses == ("forget", "guard")
    assert track(record.spec.method, record.uses, record.spec.shots) == "stored statistics"
    train, model = unhot.load_named("digits", train=True), unhot.load(str(original))
    stored = ClassStatistics.collect(model, train, Runtime())
    result = unhot.forget(model, unhot.draw(train, classes=[6], shots=4), method=NhleGuard(), guard=stored)
    assert record.steps == result.record.cost.steps
    seen = signals(model, result.classifier, unhot.draw(train, classes=[6], shots=4), Runtime())
    assert record.signals["feature_cosine"] == pytest.approx(seen["feature_cosine"], abs=1e-5)


def test_a_worker_keeps_what_the_next_cell_needs_and_one_auditor(grid_of: GridOf, done: Path) -> None:
    grid, store = grid_of(SMALL), Store(done)
    worker, records = Worker(WorkerConfig(threads=1)), []
    for task in grid.cells:
        models = [m for m in map(store.model, task.spec.training) if m is not None]
        records.append(worker.cell(task.spec, task.src, task.options, *models))
        (auditor,) = worker._auditors.values()
    for task, record in zip(grid.cells, records, strict=True):
        alone = store.record(task.spec)
        assert alone is not None
        assert record.measurements == alone.measurements
    del auditor
    kept = [weakref.ref(m.module) for m in worker._models.values()]
    assert len(kept) == 3
    assert len(worker._sources) == 1
    del worker
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


def test_a_worker_refuses_a_data_set_that_has_changed(grid_of: GridOf, done: Path) -> None:
    cell = grid_of(SMALL).cells[0].spec
    other = cell.original.model_copy(update={"data_sha256": "0" * 64})
    with pytest.raises(DataError, match=r"grid.*read"):
        Worker(WorkerConfig(threads=1)).train(other, "digits")
