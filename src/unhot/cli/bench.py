"""``unhot bench``."""

from __future__ import annotations

import json as json_
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unhot.cli.options import DataOptions, Device, Json
from unhot.errors import OptionError, OutputError

if TYPE_CHECKING:
    from unhot.bench.backends import Backend
    from unhot.bench.estimate import Estimate
    from unhot.bench.grid import Grid, Task
    from unhot.cli.output import Board
    from unhot.records.bench import FailureRecord, Work
    from unhot.records.results import Results

FAILED = 1


def bench(
    grid: Annotated[Path, typer.Argument(metavar="GRID.toml", help="Grid to run; see docs/benchmark.md.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of results; finished cells in it are kept.")] = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of trained models to reuse and add to. [OUT/models]")
    ] = None,
    backend: Annotated[Literal["local", "ray"], typer.Option("--backend", help="Local processes, or Ray.")] = "local",
    workers: Annotated[
        int, typer.Option("--workers", help="Local processes, each with a share of the cores.", min=1)
    ] = 1,
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Ray cluster to use; a new local one by default.")
    ] = None,
    cpus_per_cell: Annotated[float, typer.Option("--cpus-per-cell", help="CPUs of a cell, with Ray.", min=0)] = 1,
    gpus_per_cell: Annotated[
        float, typer.Option("--gpus-per-cell", help="GPUs of a cell, with Ray; may be a fraction.", min=0)
    ] = 0,
    timing: Annotated[bool, typer.Option(help="Time each method at the end, with nothing else running.")] = True,
    mlflow: Annotated[str | None, typer.Option("--mlflow", metavar="URI", help="Also log results to MLflow.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run, and an estimate of the time.")
    ] = False,
    *,
    where: DataOptions,
    device: Device = None,
    json: Json = False,
) -> None:
    """Run the unfinished cells of a grid, then write its tables.

    Run it again after an interruption, or after adding to the grid: finished cells are kept, failed ones tried again.
    """
    from unhot.bench.estimate import Estimator
    from unhot.bench.grid import read_grid
    from unhot.bench.results import collect, write_all
    from unhot.bench.runner import Runner, left
    from unhot.bench.store import Store
    from unhot.bench.tracking import MlflowTracker
    from unhot.bench.worker import WorkerConfig
    from unhot.cli.output import Board

    if out is None and not dry_run:
        raise OptionError("A run needs a folder for its results. Set --out, or add --dry-run.")
    if out is not None and out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file. Choose another --out.")
    whole = read_grid(grid, where.data_dir, where.download, device)
    store = Store(out or Path("nowhere"), models)
    config = WorkerConfig(where.data_dir, device)
    todo = left(whole, store)
    estimate = Estimator(whole, store, config).of(todo, timing)
    if dry_run:
        _print_plan(whole, todo, estimate, workers, json)
        return
    tracker = None if mlflow is None else MlflowTracker(mlflow, whole.name)
    with Board(sum(estimate.tasks.values())) as board:
        runner = Runner(
            whole,
            store,
            _backend(backend, workers, ray_address, cpus_per_cell, gpus_per_cell),
            replace(config, progress=board.progress),
            _BoardOfTasks(board, estimate.tasks),
            tracker,
        )
        failed = runner.run()
        if timing:
            runner.time()
    results = collect(whole, store)
    files = write_all(results, out)  # type: ignore[arg-type]
    _print_results(results, failed, files, json)
    if failed:
        raise typer.Exit(FAILED)


class _BoardOfTasks:
    """Shows tasks on a board."""

    def __init__(self, board: Board, seconds: dict[str, float]) -> None:
        self._board, self._seconds = board, seconds

    def begin(self, task: Task[Work]) -> None:
        self._board.begin(task.spec.digest, task.spec.title)

    def end(self, task: Task[Work], problem: str | None) -> None:
        from unhot.cli.output import note

        self._board.end(task.spec.digest, self._seconds[task.spec.digest])
        if problem is not None:
            note(f"Failed: {task.spec.title}: {problem}")


def _backend(kind: str, workers: int, address: str | None, cpus: float, gpus: float) -> Backend:
    from unhot.bench.backends import Inline, Local, RayCluster

    if kind == "ray":
        return RayCluster(address, cpus, gpus)
    if address is not None:
        raise OptionError("--ray-address needs --backend ray.")
    return Inline() if workers == 1 else Local(workers)


def _print_plan(grid: Grid, todo: list[Task[Work]], estimate: Estimate, workers: int, json: bool) -> None:
    from unhot.cli.output import say
    from unhot.records.bench import TrainSpec

    seconds, total = estimate.tasks, estimate.total(workers)
    parts = {n: getattr(estimate, n) for n in ("training", "forgetting", "audits", "timing")}
    cells = [p for p in todo if not isinstance(p.spec, TrainSpec)]
    if json:
        plan = [{"digest": c.spec.digest, "title": c.spec.title} for c in grid.cells]
        missing = [
            {"digest": p.spec.digest, "title": p.spec.title, "seconds": round(seconds[p.spec.digest], 1)} for p in todo
        ]
        about = {"name": grid.name, "cells": plan, "to_do": missing, "seconds": round(total, 1)}
        about |= {f"{name}_seconds": round(taken, 1) for name, taken in parts.items()}
        say(json_.dumps(about | {"guessed": sorted(estimate.guessed)}, indent=2))
        return
    for p in todo:
        say(f"{seconds[p.spec.digest]:8.0f} s  {p.spec.title}")
    say(
        f"{len(grid.cells)} cells, {len(cells)} of them to do, and {len(todo) - len(cells)} models to train: "
        f"about {_duration(total)} ({', '.join(f'{name} {_duration(taken)}' for name, taken in parts.items())})."
    )
    if estimate.guessed:
        say(
            f"How long {', '.join(sorted(estimate.guessed))} will take is a guess until a cell is done: a method may "
            "stop early, or do more than steps."
        )


def _print_results(results: Results, failed: list[FailureRecord], files: list[Path], json: bool) -> None:
    from unhot.cli.output import say

    done = sum(r.error is None for r in results.rows)
    if json:
        listed = [{"title": f.title, "error": f.error} for f in failed]
        about = {"name": results.name, "done": done, "failed": listed, "files": [str(f) for f in files]}
        say(json_.dumps(about, indent=2))
        return
    failures = f", {len(failed)} tasks failed" if failed else ""
    say(f"{done} cells done{failures}. Wrote {', '.join(str(f) for f in files)}.")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
