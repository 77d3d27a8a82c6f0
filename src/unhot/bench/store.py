"""The store: what is done, on disk. Everything is written whole or not at all, and claimed before it is begun."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from unhot.errors import InputError, ModelWarning
from unhot.files import output_errors, sha256, staged_folder
from unhot.models.bundle import GRAPH, INFO, RECORD, WEIGHTS
from unhot.records.base import Record
from unhot.records.bench import Cell, CellRecord, FailureRecord, TimingRecord, TrainSpec, Work
from unhot.records.model import BundleInfo
from unhot.records.train import TrainRecord

R = TypeVar("R", bound=Record)

BUNDLE_FILES = WEIGHTS, INFO, RECORD


class Store:
    """A folder of results.

    ``models/`` holds trained models, ``cells/DIGEST/`` the record of a cell, or why it failed, ``timings/`` how long
    methods take. A task is claimed with a lock that the system frees when the process that holds it ends,
    however it ends.

    Args:
        root: The folder; made when something is written.
        models: Where trained models are; ``root/models`` if None. Models that are there already are used if they were
            trained as the grid says, whatever their folders are called.
    """

    def __init__(self, root: Path, models: Path | None = None) -> None:
        self.root = root
        self.models = models or root / "models"
        self._trained: dict[str, Path] = {}
        self._done: set[str] = set()
        self._scanned: set[Path] = set()

    def model(self, spec: TrainSpec) -> Path | None:
        """Return the bundle of a trained model; None if it is not there."""
        if spec.digest not in self._trained:
            self._scan_models()
        return self._trained.get(spec.digest)

    def record(self, spec: Cell) -> CellRecord | None:
        """Return the record of a cell; None if it is not done."""
        return _read(self.cell(spec) / "record.json", CellRecord)

    def failure(self, spec: Work) -> FailureRecord | None:
        """Return why a task failed; None if it did not."""
        return _read(self._failure(spec), FailureRecord)

    def timing(self, spec: Cell) -> TimingRecord | None:
        """Return how long the method of a cell takes; None if it was not timed."""
        return _read(self.root / "timings" / spec.digest / "timing.json", TimingRecord)

    def done(self, spec: Work) -> bool:
        """Tell whether a task has its result."""
        if isinstance(spec, TrainSpec):
            return self.model(spec) is not None
        if spec.digest not in self._done and self.record(spec) is not None:
            self._done.add(spec.digest)
        return spec.digest in self._done

    def claim(self, spec: Work, what: str = "work") -> FileLock | None:
        """Claim a task; None if another process has it."""
        folder = (self.models if isinstance(spec, TrainSpec) else self.root) / ".locks"
        lock = FileLock(folder / f"{what}-{spec.digest}")
        with output_errors(folder.parent), suppress(Timeout):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        return lock if lock.is_locked else None

    def add_model(self, spec: TrainSpec, files: dict[str, bytes]) -> None:
        """Keep a trained model; a damaged one that is in the way is moved aside."""
        left_out = f"-without-{'-'.join(map(str, spec.excluded))}" if spec.excluded else ""
        name = f"{spec.dataset}-{spec.arch}-seed{spec.seed}{left_out}-{spec.digest[:8]}"
        folder = self.models / re.sub(r"[^\w.-]+", "_", name)
        if folder.is_dir() and any(folder.iterdir()):
            aside = next(
                p for i in itertools.count() if not (p := folder.with_name(f"{folder.name}.damaged-{i}")).exists()
            )
            folder.rename(aside)
            warnings.warn(f"The model in {folder} is damaged. It was moved to {aside}.", ModelWarning, stacklevel=2)
        with staged_folder(folder) as stage:
            for file, content in files.items():
                (stage / file).write_bytes(content)
        self._trained[spec.digest] = folder
        self._failure(spec).unlink(missing_ok=True)

    def add_record(self, record: CellRecord) -> None:
        """Keep the record of a cell."""
        self._write(self.cell(record.spec) / "record.json", record)
        self._failure(record.spec).unlink(missing_ok=True)

    def add_failure(self, record: FailureRecord) -> None:
        """Note why a task failed."""
        self._write(self._failure(record.spec), record)

    def add_timing(self, record: TimingRecord) -> None:
        """Keep how long a method takes."""
        self._write(self.root / "timings" / record.spec.digest / "timing.json", record)

    def cell(self, spec: Cell) -> Path:
        """Return the folder of a cell."""
        return self.root / "cells" / spec.digest

    def checkpoint(self, spec: TrainSpec) -> Path:
        """Return where a training keeps what it needs to go on after an interruption."""
        return self.root / "checkpoints" / spec.digest

    def _failure(self, spec: Work) -> Path:
        kind = "cells" if isinstance(spec, Cell) else "failed-models"
        return self.root / kind / spec.digest / "failure.json"

    def _write(self, path: Path, record: Record) -> None:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            record.write(path)

    def _scan_models(self) -> None:
        for folder in self._bundles():
            self._scanned.add(folder)
            record = _read(folder / "record.json", TrainRecord)
            if record is not None and _is_whole(folder):
                self._trained.setdefault(TrainSpec.of_record(record).digest, folder)

    def _bundles(self) -> Iterator[Path]:
        if self.models.is_dir():
            for folder in sorted(self.models.iterdir()):
                if folder not in self._scanned and all((folder / name).is_file() for name in BUNDLE_FILES):
                    yield folder


def _is_whole(folder: Path) -> bool:
    """Tell whether the files of a bundle are those that it describes."""
    info = _read(folder / INFO, BundleInfo)
    if info is None or sha256(folder / WEIGHTS) != info.weights_sha256:
        return False
    graph = folder / GRAPH
    return info.graph_sha256 is None or (graph.is_file() and sha256(graph) == info.graph_sha256)


def _read(path: Path, kind: type[R]) -> R | None:
    """Read a record; one that is missing or of another kind is as good as not there."""
    with suppress(InputError):
        return kind.read(path)
    return None
