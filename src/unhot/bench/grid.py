"""A grid: a TOML file, and the cells that it stands for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from pydantic import JsonValue

from unhot import methods
from unhot.bench.grid_file import AXES, USUAL, Fixed, GridFile, MethodEntry, Request, parse_grid
from unhot.data.samples import class_position
from unhot.data.source import Source, folder_input, load_source
from unhot.errors import InputError, UnhotError, raise_all
from unhot.methods.base import Method
from unhot.models.arch import build, channels_of
from unhot.records.bench import Cell, TrainSpec, Work
from unhot.records.choices import Precision
from unhot.records.model import InputSpec
from unhot.runtime import own_generators, pick_device, usual_precision
from unhot.training import complete
from unhot.version import __version__

W = TypeVar("W", bound=Work, covariant=True)

CELLS = 100_000  # more are a mistake, and would be listed in memory before the first is run


@dataclass(frozen=True)
class Task(Generic[W]):
    """A cell to run or a model to train, and what the grid says of it that does not determine the result.

    Attributes:
        spec: The cell, or the model.
        src: The data set, as the grid calls it.
        options: What the grid sets of the hyperparameters; the others are defaults.
        uses: What the method reads.
    """

    spec: W
    src: str
    options: dict[str, JsonValue] = field(default_factory=dict)
    uses: tuple[str, ...] = ()


class Grid(NamedTuple):
    """A grid whose cells can be run.

    Attributes:
        name: The name of the grid.
        cells: The cells, ordered so that neighbours share what they need.
        sources: The data sets, by the names that the grid gives them.
    """

    name: str
    cells: tuple[Task[Cell], ...]
    sources: Mapping[str, Source]

    def tasks(self) -> list[Task[Work]]:
        """Return all work, models before the cells that need them."""
        found: dict[str, Task[Work]] = {}
        for cell in self.cells:
            for spec in cell.spec.training:
                found.setdefault(spec.digest, Task(spec, cell.src))
            found[cell.spec.digest] = cell
        return list(found.values())


def read_grid(path: Path, data_dir: Path | None = None, download: bool = False, device: str | None = None) -> Grid:
    """Read a grid and check all of it.

    Args:
        path: The TOML file.
        data_dir: The folder of the named data sets.
        download: Whether they may be downloaded.
        device: The device on which nets will be trained; the best device of this machine if None.

    Raises:
        InputError: With everything that is wrong with it.
    """
    problems: list[str] = []
    file, wrong = parse_grid(path, problems)
    axes = _axes(file, wrong, problems)
    trials = [t for entry in file.method for t in _trials(entry, problems)]
    if file.fixed.in_sequence and any(t.guarded for t in trials):
        problems.append(
            "guard: it fits the original only; later requests of a sequence start from other models. Remove guard."
        )
    sources = _sources(axes.get("dataset", []), data_dir, download, problems)
    plans = [
        plan
        for src, source in sources.items()
        for arch in axes.get("arch", [])
        if (plan := _planned(src, source, arch, file.fixed, pick_device(device), problems)) is not None
    ]
    requests = {src: _requests(source, axes.get("class", []), problems) for src, source in sources.items()}
    for src, source in sources.items():
        _check_shots(source, requests[src], axes.get("shots", []), problems)
        _check_retained(source, requests[src], file.fixed.retained, problems)
    lengths = [len(plans), max(map(len, requests.values()), default=0), len(trials)]
    _check_size([*lengths, *(len(axes[n]) for n in ("model_seed", "shots", "seed"))], "The grid", problems)
    raise_all(InputError, str(path), list(dict.fromkeys(problems)))
    cells = [
        cell
        for plan in plans
        for model_seed in axes["model_seed"]
        for classes in requests[plan.src]
        for cell in _cells(plan, model_seed, classes, file.fixed, axes, trials)
    ]
    return Grid(file.name, tuple({c.spec.digest: c for c in cells}.values()), sources)


class _Plan(NamedTuple):
    """A net on a data set."""

    src: str
    source: Source
    arch: str
    input: InputSpec
    precision: Precision
    options: dict[str, JsonValue]
    settings: dict[str, JsonValue]

    def training(self, seed: int, excluded: tuple[int, ...] = ()) -> TrainSpec:
        kept = ~torch.isin(self.source.train_images.y, torch.tensor(excluded, dtype=torch.int64))
        return TrainSpec(
            dataset=self.source.name,
            data_sha256=self.source.sha256,
            input=self.input,
            precision=self.precision,
            arch=self.arch,
            arch_options=self.options,
            settings=self.settings,
            seed=seed,
            excluded=tuple(sorted(excluded)),
            train_images=int(kept.sum()),
        )


class _Trial(NamedTuple):
    """A method with hyperparameters, of which the grid set ``options``."""

    method: Method
    options: dict[str, JsonValue]
    guarded: bool


def _axes(file: GridFile, wrong: Collection[str], problems: list[str]) -> dict[str, list[Any]]:
    fixed, listed = file.fixed.values(), file.grid.values()
    for name in AXES:
        if name in fixed and name in listed:
            problems.append(f"{name} is in [fixed] and in [grid]. Keep one.")
        if name not in fixed and name not in listed and name not in {*USUAL, *wrong}:
            problems.append(f"{name} is missing. Set a value in [fixed] or a list in [grid].")
    return {n: listed.get(n) or fixed.get(n) or USUAL.get(n, []) for n in AXES}


def _trials(entry: MethodEntry, problems: list[str]) -> Iterator[_Trial]:
    if twice := sorted(set(entry.options) & set(entry.grid)):
        problems.append(f"method {entry.name}: {', '.join(twice)} in both options and grid. Keep one.")
        return
    if not _check_size(map(len, entry.grid.values()), f"method {entry.name}: its grid", problems):
        return
    for options in entry.trials():
        try:
            method = methods.get(entry.name).of(options)
        except UnhotError as error:
            problems.append(str(error))
            continue
        if entry.guard and "guard" not in method.uses + method.may_use:
            problems.append(f"method {entry.name}: it does not read stored statistics. Remove guard.")
            return
        yield _Trial(method, options, entry.guard or "guard" in method.uses)


def _sources(names: list[str], data_dir: Path | None, download: bool, problems: list[str]) -> dict[str, Source]:
    found = {}
    for name in names:
        try:
            source = load_source(name, data_dir, download)
            if source.train_images and source.test_images:  # both are needed
                found[name] = source
        except UnhotError as error:
            problems.append(str(error))
    return found


def _planned(
    src: str, source: Source, arch: str, fixed: Fixed, device: torch.device, problems: list[str]
) -> _Plan | None:
    """Check that a net can be built for a data set and trained as the grid says."""
    options = fixed.arch_options.get(arch, {})
    spec = channels_of(arch, source.input or folder_input(source.train_images))
    try:
        with own_generators():
            net = build(arch, len(source.train_images.class_names or ()), spec, options)
        settings = complete(dict(fixed.train), source, arch).model_dump()
    except UnhotError as error:
        problems.append(str(error))
        return None
    precision = fixed.precision or usual_precision(net, device)
    return _Plan(src, source, arch, spec, precision, options, settings)


def _requests(source: Source, wanted: list[Request], problems: list[str]) -> list[tuple[int, ...]]:
    found = []
    for request in wanted:
        try:
            classes = [
                class_position(source.train_images, c) for c in (request if isinstance(request, list) else [request])
            ]
        except UnhotError as error:
            problems.append(f"{source.name}: {error}")
            continue
        if not classes or len(set(classes)) < len(classes):
            problems.append(f"class {request}: name each class once.")
        elif len(classes) > len(source.train_images.class_names or ()) - 2:
            problems.append(f"{source.name}: class {request} leaves fewer than two classes. Forget fewer.")
        else:
            found.append(tuple(classes))
    return found


def _check_shots(source: Source, requests: list[tuple[int, ...]], shots: list[Any], problems: list[str]) -> None:
    for c in sorted({c for request in requests for c in request}):
        there = int((source.train_images.y == c).sum())
        if too_many := [s for s in shots if s != "all" and s > there]:
            problems.append(
                f"{source.name}: {too_many[0]} shots asked for, but class {c} has {there} images. Use fewer."
            )


def _check_retained(source: Source, requests: list[tuple[int, ...]], retained: int | None, problems: list[str]) -> None:
    there = min((int((~torch.isin(source.train_images.y, torch.tensor(r))).sum()) for r in requests), default=0)
    if retained is not None and requests and retained > there:
        problems.append(
            f"{source.name}: retained = {retained:,}, but a request leaves {there:,} images. Use fewer, or "
            "remove it to use all."
        )


def _check_size(lengths: Iterable[int], what: str, problems: list[str]) -> bool:
    """Note a product of lists that is too long to be run, and return whether it is short enough."""
    size = math.prod(lengths)
    if size > CELLS:
        problems.append(f"{what} has {size:,} cells, more than the limit of {CELLS:,}. Use fewer values.")
    return size <= CELLS


def _cells(
    plan: _Plan,
    model_seed: int,
    classes: tuple[int, ...],
    fixed: Fixed,
    axes: dict[str, list[Any]],
    trials: list[_Trial],
) -> Iterator[Task[Cell]]:
    original = plan.training(model_seed)
    retrained = tuple(plan.training(model_seed + 1 + i, classes) for i in range(fixed.retrained))
    for shots, trial, seed in itertools.product(axes["shots"], trials, axes["seed"]):
        retains = "retain" in trial.method.uses
        spec = Cell(
            original=original,
            retrained=retrained,
            classes=classes,
            in_sequence=fixed.in_sequence and len(classes) > 1,
            shots=None if shots == "all" else shots,
            seed=seed,
            method=trial.method.name,
            hyperparameters=trial.method.model_dump(mode="json"),
            retained=fixed.retained if retains else None,
            guarded=trial.guarded,
            audit=fixed.audit,
            unhot=__version__,
        )
        options, uses = trial.options, trial.method.uses
        if trial.guarded and "guard" not in uses:  # it may be tried without, too
            options, uses = options | {"guarded": True}, (*uses, "guard")
        yield Task(spec, plan.src, options, uses)
