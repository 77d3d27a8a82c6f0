"""The runner: does what a grid still lacks."""

from __future__ import annotations

import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from filelock import FileLock

from unhot.bench.backends import RETRIES, Backend, Inline
from unhot.bench.grid import Grid, Task
from unhot.bench.store import Store
from unhot.bench.worker import Worker, WorkerConfig
from unhot.errors import UnhotError, UnhotWarning
from unhot.records.bench import Cell, CellRecord, FailureRecord, TrainSpec, Work

POLL_SECONDS = 1.0


class Board(Protocol):
    """Shows what is going on."""

    def begin(self, task: Task[Work]) -> None:
        """A task was begun."""

    def end(self, task: Task[Work], problem: str | None) -> None:
        """It ended, or somebody else did it."""


class Tracker(Protocol):
    """Takes results to an experiment tracker."""

    def log(self, record: CellRecord) -> None:
        """Take one result."""


def left(grid: Grid, store: Store) -> list[Task[Work]]:
    """Return the work that has no result yet."""
    return [task for task in grid.tasks() if not store.done(task.spec)]


@dataclass
class Runner:
    """Runs a grid; several may run the same grid on one store.

    Attributes:
        grid: What is to be done.
        store: Where results are kept.
        backend: Where it is computed.
        config: The data, and the device if one was asked for.
        board: Shows what is going on.
        tracker: Logs every new result.
    """

    grid: Grid
    store: Store
    backend: Backend
    config: WorkerConfig
    board: Board
    tracker: Tracker | None = None

    def run(self) -> list[FailureRecord]:
        """Do what is not done; return what failed."""
        waiting, failed, lost = left(self.grid, self.store), dict[str, FailureRecord](), Counter[str]()
        flying: dict[Future[Any], tuple[Task[Work], FileLock]] = {}
        try:
            while waiting or flying:
                for task in list(waiting):
                    if len(flying) >= self.backend.slots:
                        break
                    if self._settled_elsewhere(task, failed):
                        waiting.remove(task)
                    elif self._ready(task) and (lock := self._claimed(task)) is not None:
                        waiting.remove(task)
                        self.board.begin(task)
                        flying[self._submit(task)] = task, lock
                if not flying:
                    time.sleep(POLL_SECONDS)  # another runner has what is left
                for future in wait(flying, POLL_SECONDS, "FIRST_COMPLETED").done:
                    task, lock = flying.pop(future)
                    if isinstance(future.exception(), BrokenExecutor) and lost[task.spec.digest] < RETRIES:
                        lost[task.spec.digest] += 1
                        waiting.insert(0, task)
                    elif (failure := self._settle(task, future)) is not None:
                        failed[task.spec.digest] = failure
                    lock.release()
        finally:
            self.backend.close()
        return list(failed.values())

    def time(self) -> None:
        """Time each method once for every net and number of images, with nothing else running here."""
        here = Inline()
        for cell in timed(self.grid, self.store):
            lock = self.store.claim(cell.spec, "timing")
            if lock is None:
                continue
            original = self.store.model(cell.spec.original)
            found = here.submit(self.config, Worker.timing, cell.spec, cell.src, models=[original] if original else [])
            if found.exception() is None:
                self.store.add_timing(found.result())
            lock.release()

    def _settled_elsewhere(self, task: Task[Work], failed: dict[str, FailureRecord]) -> bool:
        """Tell whether a task needs no work: another runner did it, or a model that it needs cannot be had."""
        if self.store.done(task.spec):
            self.board.end(task, None)
            return True
        needed = task.spec.training if isinstance(task.spec, Cell) else ()
        broken = [failed[s.digest] for s in needed if s.digest in failed]
        if broken:
            problem = f"{broken[0].title} could not be trained: {broken[0].error}"
            failed[task.spec.digest] = self._failure(task, problem)
        return bool(broken)

    def _ready(self, task: Task[Work]) -> bool:
        return isinstance(task.spec, TrainSpec) or all(self.store.done(s) for s in task.spec.training)

    def _claimed(self, task: Task[Work]) -> FileLock | None:
        lock = self.store.claim(task.spec)
        if lock is not None and self.store.done(task.spec):  # between the look and the claim
            lock.release()
            return None
        return lock

    def _submit(self, task: Task[Work]) -> Future[Any]:
        if isinstance(task.spec, TrainSpec):
            checkpoint = self.store.checkpoint(task.spec)
            return self.backend.submit(self.config, Worker.train, task.spec, task.src, checkpoint)
        models = [m for m in map(self.store.model, task.spec.training) if m is not None]
        return self.backend.submit(self.config, Worker.cell, task.spec, task.src, task.options, models=models)

    def _settle(self, task: Task[Work], future: Future[Any]) -> FailureRecord | None:
        """Keep a result, or why there is none."""
        error = future.exception()
        if error is not None:
            expected = isinstance(error, UnhotError)
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            trace = None if expected else "".join(traceback.format_exception(error))
            return self._failure(task, text, trace)
        if isinstance(task.spec, TrainSpec):
            self.store.add_model(task.spec, future.result())
            self.store.checkpoint(task.spec).unlink(missing_ok=True)
        else:
            self.store.add_record(future.result())
            self._track(future.result())
        self.board.end(task, None)
        return None

    def _track(self, record: CellRecord) -> None:
        """Tell the tracker; the result is in the store already, so that a tracker that fails loses nothing."""
        if self.tracker is None:
            return
        try:
            self.tracker.log(record)
        except Exception as error:  # whatever the tracker's library raises
            warnings.warn(
                f"{record.spec.title} is in the store, but could not be logged: {error}", UnhotWarning, stacklevel=2
            )

    def _failure(self, task: Task[Work], error: str, trace: str | None = None) -> FailureRecord:
        failure = FailureRecord(
            digest=task.spec.digest,
            title=task.spec.title,
            spec=task.spec,
            options=task.options,
            uses=task.uses,
            error=error,
            traceback=trace,
        )
        self.store.add_failure(failure)
        self.board.end(task, error)
        return failure


def timed(grid: Grid, store: Store, done: Callable[[Cell], bool] | None = None) -> Iterator[Task[Cell]]:
    """Give the cells whose method is to be timed and was not: the first of each net, method and number of images.

    Args:
        grid: The grid.
        store: Where results are kept.
        done: Tells whether a cell is done; as the store says if None.
    """
    done = done or store.done
    seen = set[tuple[str, str]]()
    for cell in grid.cells:
        method = cell.spec.model_dump_json(include={"method", "hyperparameters", "shots", "retained", "guarded"})
        if (cell.spec.original.digest, method) in seen:
            continue
        if done(cell.spec):
            seen.add((cell.spec.original.digest, method))
            if store.timing(cell.spec) is None:
                yield cell
