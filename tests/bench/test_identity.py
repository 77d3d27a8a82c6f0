"""Models and cells are known by what determines them: the content of the data and the precision, not names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_grid import SMALL, models, run

from unhot.bench.grid import Grid, read_grid
from unhot.bench.store import Store
from unhot.data.images import LabelledImages
from unhot.data.source import load_source
from unhot.errors import InputError
from unhot.records.bench import TrainSpec
from unhot.records.train import TrainRecord
from unhot.training import train

GRID = """
schema = 1
name = "own"
[fixed]
dataset = "{}"
arch = "lenet5"
shots = 2
retrained = 0
train = {{ epochs = 1 }}
[grid]
class = ["a"]
[[method]]
name = "mask"
"""


def tree(root: Path, seed: int = 0) -> Path:
    """Make a folder of pictures: three classes that differ in brightness, or noise of another seed."""
    for split in ("train", "test"):
        for level, name in enumerate("abc"):
            (root / split / name).mkdir(parents=True)
            for i in range(6):
                noise = np.random.default_rng([seed, level, i, split == "test"]).integers(0, 40, (16, 16))
                pixels = noise + 80 * ((level + seed) % 3)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")
    return root


def grid_of(data: Path, text: str = GRID) -> Grid:
    path = data.parent / "grid.toml"
    path.write_text(text.format(data.as_posix()))
    return read_grid(path)


@pytest.mark.filterwarnings("ignore:The original model classifies")  # a net of one epoch
def test_two_folders_of_one_name_are_two_data_sets(tmp_path: Path) -> None:
    first, second = grid_of(tree(tmp_path / "x" / "data")), grid_of(tree(tmp_path / "y" / "data", seed=1))
    store = Store(tmp_path / "out")
    assert run(first, store).problems == []
    assert not any(store.done(s) for s in (second.cells[0].spec, *models(second)))
    board = run(second, store)
    assert (len(board.begun), board.problems) == (2, [])
    mine, theirs = store.record(first.cells[0].spec), store.record(second.cells[0].spec)
    assert mine is not None
    assert theirs is not None
    assert mine.measurements != theirs.measurements
    assert len({store.model(s) for g in (first, second) for s in models(g)}) == 2


def test_the_same_content_elsewhere_is_the_same_data_set(tmp_path: Path) -> None:
    tree(tmp_path / "x" / "data")
    shutil.copytree(tmp_path / "x" / "data", tmp_path / "y" / "data")
    first, second = (grid_of(tmp_path / place / "data") for place in "xy")
    assert first.cells[0].spec.digest == second.cells[0].spec.digest


def brighter(root: Path, split: str = "train") -> None:
    path = root / split / "b" / "3.png"
    Image.fromarray(np.asarray(Image.open(path)) + 1).save(path)


def brighter_in_test(root: Path) -> None:
    brighter(root, "test")


def swapped(root: Path) -> None:
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (root / "train" / old).rename(root / "train" / new)


def renamed(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "b").rename(root / split / "bb")


@pytest.mark.parametrize("change", [brighter, brighter_in_test, swapped, renamed])
def test_any_change_of_content_is_another_data_set(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = tree(tmp_path / "data")
    before = load_source(str(root)).sha256
    assert load_source(str(root)).sha256 == before
    change(root)
    assert load_source(str(root)).sha256 != before


def test_named_and_own_sets_are_known_by_their_pixels(digits: object) -> None:
    source = load_source("digits")
    seen: LabelledImages = source.train_images
    assert source.sha256 == load_source("digits").sha256
    other = replace(seen, y=seen.y.flip(0))
    assert replace(source, train=other).sha256 != source.sha256
    x = seen.pixels(seen.y[:4] * 0, source.input)
    assert replace(seen.select(seen.y[:4]), x=x).sha256() != replace(seen.select(seen.y[:4]), x=255 - x).sha256()


def test_a_data_set_that_changes_while_a_bench_runs_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    grid = grid_of(root)
    brighter(root)
    board = run(grid, Store(tmp_path / "out"))
    assert "has changed since the grid was read. Run the bench again." in board.problems[0]


def test_the_precision_is_chosen_when_the_grid_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.toml"

    def spec_of(text: str) -> TrainSpec:
        path.write_text(text)
        return read_grid(path).cells[0].spec.original

    large = SMALL.replace('"lenet5"', '"resnet9"')
    monkeypatch.setattr("unhot.runtime.device.fast_bf16", lambda device: True)
    assert spec_of(SMALL).precision == "fp32"  # a small net
    fast = spec_of(large)
    assert fast.precision == "bf16"
    asked = spec_of(large.replace("[fixed]", '[fixed]\nprecision = "fp32"'))
    monkeypatch.setattr("unhot.runtime.device.fast_bf16", lambda device: False)
    slow = spec_of(large)
    assert slow.precision == asked.precision == "fp32"
    assert slow.digest == asked.digest != fast.digest
    with pytest.raises(InputError, match=r"precision"):
        spec_of(large.replace("[fixed]", '[fixed]\nprecision = "fp8"'))


def test_a_model_trained_in_another_way_is_not_taken_for_this_one(tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    wanted = grid_of(root).cells[0].spec.original
    source = load_source(str(root))
    settings = {"epochs": 1}

    def of(**more: object) -> TrainSpec:
        return TrainSpec.of_record(train(source, "lenet5", settings=settings, **more)[1])  # type: ignore[arg-type]

    assert of() == wanted
    assert of(precision="bf16").digest != wanted.digest
    assert of(image_size=20).digest != wanted.digest


def test_a_model_of_an_older_version_is_read_and_not_used(done: Path, tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(SMALL)
    shutil.copytree(done, tmp_path / "out")
    for file in (tmp_path / "out" / "models").glob("*/record.json"):
        record = TrainRecord.read(file)
        environment = record.environment.model_copy(update={"precision": None, "cpu_capability": None})
        record = record.model_copy(update={"data_sha256": None, "input": None, "environment": environment})
        text = record.model_dump_json(exclude_none=True, exclude={"test_accuracy"})
        file.write_text(text.replace('"train_images"', '"test_accuracy":null,"train_images"'))
        assert TrainRecord.read(file) == record.model_copy(update={"test_accuracy": None})
    store = Store(tmp_path / "out")
    assert [store.model(s) for s in models(read_grid(path))] == [None] * 3


def test_the_environment_says_what_changes_numbers(done: Path) -> None:
    record = TrainRecord.read(next((done / "models").glob("*/record.json")))
    environment = record.environment
    assert environment.precision == record.settings["precision"] == "fp32"
    assert environment.cpu_capability
    assert environment.cpu_threads == 1
