"""How long a grid will take: from a measured pass of each net, and from cells that are done."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from unhot.bench.grid import Grid, Task
from unhot.bench.runner import timed
from unhot.bench.store import Store
from unhot.bench.worker import WorkerConfig
from unhot.data.source import Source, folder_input
from unhot.evaluation.auditor import TEST_IMAGES, TRAIN_IMAGES
from unhot.evaluation.metrics.similarity import AXES, KERNEL, LEARNT_FROM, STRENGTHS
from unhot.models.arch import build, channels_of
from unhot.models.classifier import Classifier
from unhot.records.bench import Cell, TrainSpec, Work
from unhot.runtime.run import LONG_RUN, Runtime

BATCH = 64
# measured on nets of digits and of Fashion-MNIST
PASSES = 4  # over the samples in a step of a method, which may see other images, too
FITS = 40  # regressions that take as long as what a quick audit measures of one model, beside its forward passes
FULL = 1.2  # times as long that of a full audit takes, beside the attacks that train
TRAINED = 12_000  # images forward and backward of these attacks, of each model
RUNS = 4  # of a method that is timed


class Net(NamedTuple):
    """What a net takes on this machine.

    Attributes:
        image: Seconds of one image, forward and backward.
        fit: Seconds of a regression on its features, as an audit makes them.
    """

    image: float
    fit: float


@dataclass
class Estimate:
    """Seconds that a grid will take.

    Attributes:
        tasks: All of each task, by its digest.
        training: Those of the models to train.
        forgetting: Those of methods in the cells to do.
        audits: Those of what the cells measure.
        timing: Those of timing the methods when all is done.
        guessed: Methods of which no cell is done yet, so that their time is a guess.
    """

    tasks: dict[str, float] = field(default_factory=dict)
    training: float = 0.0
    forgetting: float = 0.0
    audits: float = 0.0
    timing: float = 0.0
    guessed: set[str] = field(default_factory=set)

    def add(self, spec: Work, training: float = 0.0, forgetting: float = 0.0, audits: float = 0.0) -> None:
        """Count a task in."""
        self.tasks[spec.digest] = training + forgetting + audits
        self.training += training
        self.forgetting += forgetting
        self.audits += audits

    def total(self, workers: int) -> float:
        """Return the seconds of all; methods are timed by one process."""
        return (self.training + self.forgetting + self.audits) / workers + self.timing


class Estimator:
    """Estimates how many seconds tasks take.

    Args:
        grid: The grid whose tasks are estimated.
        store: What is done of it.
        config: Where they are to be computed.
    """

    def __init__(self, grid: Grid, store: Store, config: WorkerConfig) -> None:
        self._grid, self._store, self._config = grid, store, config
        self._nets: dict[tuple[str, str, str], Net] = {}
        self._known: dict[str, list[float]] = defaultdict(list)
        for task in grid.cells:
            if (record := store.record(task.spec)) is not None:
                self._known[_setting(task.spec)].append(record.seconds)

    def of(self, todo: Iterable[Task[Work]], timing: bool) -> Estimate:
        """Estimate tasks in their order.

        Args:
            todo: The tasks.
            timing: Whether methods are timed at the end.
        """
        found, audited = Estimate(), set[tuple[str, ...]]()
        for task in todo:
            spec = task.spec
            if isinstance(spec, TrainSpec):
                images = int(str(spec.settings["epochs"])) * spec.train_images
                found.add(spec, training=images * self._net(spec, task.src).image)
                continue
            beside = (*(s.digest for s in spec.training), *map(str, spec.classes))  # measured with the first cell
            models = 1 if beside in audited else 1 + len(spec.training)
            audited.add(beside)
            found.add(spec, forgetting=self._forgetting(spec, task), audits=self._audits(spec, task.src, models))
            if _setting(spec) not in self._known:
                found.guessed.add(spec.method)
        if timing:
            found.timing = sum(map(self._timing, timed(self._grid, self._store, done=lambda _: True)))
        return found

    def _timing(self, task: Task[Cell]) -> float:
        """Estimate how long it takes to time a method on one request."""
        requests = len(task.spec.classes) if task.spec.in_sequence else 1
        seconds = self._forgetting(task.spec, task) / requests
        return seconds if seconds > LONG_RUN else RUNS * seconds

    def _forgetting(self, spec: Cell, task: Task[Cell] | Task[Work]) -> float:
        """Estimate the method of a cell: what it took in cells that are done, or else by the images that it reads."""
        if seconds := self._known.get(_setting(spec)):
            return statistics.fmean(seconds)
        return _images(spec, task.uses, self._grid.sources[task.src]) * self._net(spec.original, task.src).image

    def _audits(self, spec: Cell, src: str, models: int) -> float:
        """Estimate what is measured of the unlearned model and, for the first of them, of those beside it."""
        net, source = self._net(spec.original, src), self._grid.sources[src]
        tested, trained = min(len(source.test_images), TEST_IMAGES), min(len(source.train_images), TRAIN_IMAGES)
        forward = (tested + trained) * net.image / 3  # a forward pass is a third of one with gradients
        measures = FITS * net.fit
        if spec.audit == "full":
            measures = FULL * measures + TRAINED * net.image
        after_each = len(spec.classes) * tested * net.image / 3 if spec.in_sequence else 0.0
        return models * (forward + measures) + after_each

    def _net(self, spec: TrainSpec, src: str) -> Net:
        """Return what a net takes, measured once."""
        key = spec.arch, repr(sorted(spec.arch_options.items())), src
        if key not in self._nets:
            self._nets[key] = self._measured(spec, self._grid.sources[src])
        return self._nets[key]

    def _measured(self, spec: TrainSpec, source: Source) -> Net:
        shape = channels_of(spec.arch, source.input or folder_input(source.train_images))
        runtime, classes = self._config.runtime(), len(source.train_images.class_names or ())
        with runtime.seeded("estimate"):
            net = build(spec.arch, classes, shape, spec.arch_options).to(runtime.device)
            x = torch.randn(BATCH, *shape.shape, device=runtime.device)
            y = torch.zeros(BATCH, dtype=torch.int64, device=runtime.device)
        image = _second(runtime, lambda: cross_entropy(net(x), y).backward()) / BATCH
        return Net(image, _fit(runtime, Classifier.wrap(net, x[:2]).head_layer.in_features))


def _fit(runtime: Runtime, features: int) -> float:
    """Time one of the regressions of which an audit makes dozens."""
    from sklearn.linear_model import RidgeCV

    numbers = torch.randn(LEARNT_FROM, features + KERNEL + AXES, generator=runtime.generator("estimate")).double()
    known, aims = numbers.split([features + KERNEL, AXES], dim=1)
    return _second(runtime, lambda: RidgeCV(STRENGTHS).fit(known.numpy(), aims.numpy()))


def _second(runtime: Runtime, run: Callable[[], object]) -> float:
    """Return the seconds of the second of two runs; the first warms up."""
    run()
    started = runtime.clock()
    run()
    return runtime.clock() - started


def _setting(spec: Cell) -> str:
    """Return what determines how long the method of a cell takes."""
    net = {"dataset", "arch", "arch_options"}
    how = {"method", "hyperparameters", "shots", "retained", "guarded", "in_sequence"}
    return f"{spec.original.model_dump_json(include=net)} {len(spec.classes)} {spec.model_dump_json(include=how)}"


def _images(spec: Cell, uses: tuple[str, ...], source: Source) -> float:
    """Guess how many images a method runs through the net."""
    known = {
        name: float(str(spec.hyperparameters[name])) for name in ("epochs", "steps") if name in spec.hyperparameters
    }
    passes = known.get("epochs", PASSES * known["steps"] if "steps" in known else 1.0)
    samples = len(spec.classes) * (
        spec.shots or len(source.train_images) // len(source.train_images.class_names or "x")
    )
    retained = spec.retained if spec.retained is not None else len(source.train_images)
    return passes * (samples + (retained if "retain" in uses else 0))
