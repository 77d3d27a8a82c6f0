"""A small grid on the bundled digits, and what runs it."""

from __future__ import annotations

from typing import Any

from unhot.bench.backends import Inline
from unhot.bench.grid import Grid, Task
from unhot.bench.runner import Runner
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig
from unhot.records.bench import TrainSpec

SMALL = """
schema = 1
name = "small"
[fixed]
dataset = "digits"
arch = "lenet5"
shots = 4
train = { epochs = 2 }
[grid]
class = [1, 6]
seed = [0]
[[method]]
name = "mask"
[[method]]
name = "nhle-cwm"
options = { steps = 2 }
"""


class Quiet:
    """A board that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.problems: list[str] = []

    def begin(self, task: Task[Any]) -> None:
        self.begun.append(task.spec.title)

    def end(self, task: Task[Any], problem: str | None) -> None:
        if problem is not None:
            self.problems.append(problem)


def run(grid: Grid, store: Store, backend: Any = None) -> Quiet:
    board = Quiet()
    Runner(grid, store, backend or Inline(), WorkerConfig(threads=1), board).run()
    return board


def models(grid: Grid) -> list[TrainSpec]:
    """Return the models that a grid needs."""
    return [p.spec for p in grid.tasks() if isinstance(p.spec, TrainSpec)]
