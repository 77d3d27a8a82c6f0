"""The runner: does what a grid still lacks."""

from __future__ import annotations

import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from filelock import FileLock
from pydantic import JsonValue

from unhot.bench import work
from unhot.bench.backends import RETRIES, Backend, Inline
from unhot.bench.grid import Cell, Grid
from unhot.bench.store import Store
from unhot.bench.work import WorkerConfig
from unhot.errors import UnhotError, UnhotWarning
from unhot.records.bench import BenchRecord, CellSpec, FailureRecord, TrainSpec

POLL_SECONDS = 1.0


class Board(Protocol):
    """Shows what is going on."""

    def begin(self, piece: Task) -> None:
        """A piece of work was begun."""

    def end(self, piece: Task, problem: str | None) -> None:
        """It ended, or somebody else did it."""


class Tracker(Protocol):
    """Takes results to an experiment tracker."""

    def log(self, record: BenchRecord) -> None:
        """Take one result."""


@dataclass(frozen=True)
class Task:
    """A piece of work, and what the grid says of it."""

    spec: CellSpec | TrainSpec
    src: str
    options: dict[str, JsonValue] = field(default_factory=dict)
    uses: tuple[str, ...] = ()


def tasks(grid: Grid) -> list[Task]:
    """Return all work of a grid, models before the cells that need them."""
    found: dict[str, Task] = {}
    for cell in grid.cells:
        for spec in cell.spec.training:
            found.setdefault(spec.digest, Task(spec, cell.src))
        found[cell.spec.digest] = Task(*cell)
    return list(found.values())


def left(grid: Grid, store: Store) -> list[Task]:
    """Return the work that has no result yet."""
    return [p for p in tasks(grid) if not store.done(p.spec)]


@dataclass
class Runner:
    """Runs a grid; several may run the same grid on one store.

    Attributes:
        grid: What is to be done.
        store: Where results are kept.
        backend: Where it is computed.
        place: The data, and the device if one was asked for.
        board: Shows what is going on.
        tracker: Is told every new result.
    """

    grid: Grid
    store: Store
    backend: Backend
    place: WorkerConfig
    board: Board
    tracker: Tracker | None = None

    def run(self) -> list[FailureRecord]:
        """Do what is not done; return what failed."""
        waiting, failed, lost = left(self.grid, self.store), dict[str, FailureRecord](), Counter[str]()
        flying: dict[Future[Any], tuple[Task, FileLock]] = {}
        try:
            while waiting or flying:
                for piece in list(waiting):
                    if len(flying) >= self.backend.slots:
                        break
                    if self._settled_elsewhere(piece, failed):
                        waiting.remove(piece)
                    elif self._ready(piece) and (lock := self._claimed(piece)) is not None:
                        waiting.remove(piece)
                        self.board.begin(piece)
                        flying[self._submit(piece)] = piece, lock
                if not flying:
                    time.sleep(POLL_SECONDS)  # another runner has what is left
                for future in wait(flying, POLL_SECONDS, "FIRST_COMPLETED").done:
                    piece, lock = flying.pop(future)
                    if isinstance(future.exception(), BrokenExecutor) and lost[piece.spec.digest] < RETRIES:
                        lost[piece.spec.digest] += 1
                        waiting.insert(0, piece)
                    elif (failure := self._settle(piece, future)) is not None:
                        failed[piece.spec.digest] = failure
                    lock.release()
        finally:
            self.backend.close()
        return list(failed.values())

    def time(self) -> None:
        """Time each method once for every net and number of images, with nothing else running here."""
        for cell in timed(self.grid, self.store):
            lock = self.store.claim(cell.spec, "timing")
            if lock is None:
                continue
            original = self.store.model(cell.spec.original)
            found = Inline().submit(work.timing, cell.spec, cell.src, self.place, models=[original] if original else [])
            if found.exception() is None:
                self.store.add_timing(found.result())
            lock.release()

    def _settled_elsewhere(self, piece: Task, failed: dict[str, FailureRecord]) -> bool:
        """Tell whether a piece needs no work: another runner did it, or a model that it needs cannot be had."""
        if self.store.done(piece.spec):
            self.board.end(piece, None)
            return True
        needed = piece.spec.training if isinstance(piece.spec, CellSpec) else ()
        broken = [failed[s.digest] for s in needed if s.digest in failed]
        if broken:
            problem = f"{broken[0].title} could not be trained: {broken[0].error}"
            failed[piece.spec.digest] = self._failure(piece, problem)
        return bool(broken)

    def _ready(self, piece: Task) -> bool:
        return isinstance(piece.spec, TrainSpec) or all(self.store.done(s) for s in piece.spec.training)

    def _claimed(self, piece: Task) -> FileLock | None:
        lock = self.store.claim(piece.spec)
        if lock is not None and self.store.done(piece.spec):  # between the look and the claim
            lock.release()
            return None
        return lock

    def _submit(self, piece: Task) -> Future[Any]:
        if isinstance(piece.spec, TrainSpec):
            checkpoint = self.store.checkpoint(piece.spec)
            return self.backend.submit(work.train, piece.spec, piece.src, self.place, checkpoint)
        models = [m for m in map(self.store.model, piece.spec.training) if m is not None]
        return self.backend.submit(work.cell, piece.spec, piece.src, piece.options, self.place, models=models)

    def _settle(self, piece: Task, future: Future[Any]) -> FailureRecord | None:
        """Keep a result, or why there is none."""
        error = future.exception()
        if error is not None:
            expected = isinstance(error, UnhotError)
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            trace = None if expected else "".join(traceback.format_exception(error))
            return self._failure(piece, text, trace)
        if isinstance(piece.spec, TrainSpec):
            self.store.add_model(piece.spec, future.result())
            self.store.checkpoint(piece.spec).unlink(missing_ok=True)
        else:
            self.store.add_record(future.result())
            self._track(future.result())
        self.board.end(piece, None)
        return None

    def _track(self, record: BenchRecord) -> None:
        """Tell the tracker; the result is in the store already, so that a tracker that fails loses nothing."""
        if self.tracker is None:
            return
        try:
            self.tracker.log(record)
        except Exception as error:  # whatever the tracker's library raises
            warnings.warn(
                f"{record.spec.title} was not logged, and is kept in the store: {error}", UnhotWarning, stacklevel=2
            )

    def _failure(self, piece: Task, error: str, trace: str | None = None) -> FailureRecord:
        failure = FailureRecord(
            digest=piece.spec.digest,
            title=piece.spec.title,
            spec=piece.spec,
            options=piece.options,
            uses=piece.uses,
            error=error,
            traceback=trace,
        )
        self.store.add_failure(failure)
        self.board.end(piece, error)
        return failure


def timed(grid: Grid, store: Store) -> Iterator[Cell]:
    """Give the cells whose method is to be timed and was not: the first of each net, method and number of images."""
    seen = set[tuple[str, str]]()
    for cell in grid.cells:
        method = cell.spec.model_dump_json(include={"method", "hyperparameters", "shots", "retained", "guarded"})
        if (cell.spec.original.digest, method) in seen:
            continue
        if store.done(cell.spec):
            seen.add((cell.spec.original.digest, method))
            if store.timing(cell.spec) is None:
                yield cell
