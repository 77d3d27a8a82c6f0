"""How long a grid will take, from one measured pass of each net."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from unhot.bench.grid import Grid, Task
from unhot.bench.worker import WorkerConfig
from unhot.data.source import Source, folder_input
from unhot.evaluation.auditor import TEST_IMAGES, TRAIN_IMAGES
from unhot.models.arch import build, channels_of
from unhot.records.bench import Cell, TrainSpec, Work

BATCH = 64
PASSES = 20  # over the samples, of a method that says nothing of epochs
ATTACKS_SECONDS = 60.0  # of a full audit, beside its forward passes


class Estimator:
    """Estimates how many seconds a task takes.

    Args:
        grid: The grid whose tasks are estimated.
        config: Where they are to be computed.
    """

    def __init__(self, grid: Grid, config: WorkerConfig) -> None:
        self._grid, self._config = grid, config
        self._measured: dict[tuple[str, str, str], float] = {}

    def seconds(self, task: Task[Work]) -> float:
        """Estimate one task."""
        spec, source = task.spec, self._grid.sources[task.src]
        if isinstance(spec, TrainSpec):
            return int(str(spec.settings["epochs"])) * spec.train_images * self._image(spec, task.src)
        image = self._image(spec.original, task.src)
        evaluated = min(len(source.test_images), TEST_IMAGES) + min(len(source.train_images), TRAIN_IMAGES)
        audit = evaluated * image / 3 * 2  # a forward pass is a third of one with gradients; as much for the measures
        return _forgetting(spec, task.uses, source) * image + audit + ATTACKS_SECONDS * (spec.audit == "full")

    def _image(self, spec: TrainSpec, src: str) -> float:
        """Return the seconds of one image, forward and backward, measured once for each net."""
        key = spec.arch, repr(sorted(spec.arch_options.items())), src
        if key not in self._measured:
            self._measured[key] = self._measure(spec, self._grid.sources[src])
        return self._measured[key]

    def _measure(self, spec: TrainSpec, source: Source) -> float:
        shape = channels_of(spec.arch, source.input or folder_input(source.train_images))
        runtime = self._config.runtime()
        with runtime.seeded("estimate"):
            net = build(spec.arch, len(source.train_images.class_names or ()), shape, spec.arch_options).to(
                runtime.device
            )
            x = torch.randn(BATCH, *shape.shape, device=runtime.device)
        taken = []
        for _ in range(2):  # the first warms up
            started = runtime.clock()
            cross_entropy(net(x), torch.zeros(BATCH, dtype=torch.int64, device=runtime.device)).backward()
            taken.append(runtime.clock() - started)
        return taken[-1] / BATCH


def _forgetting(spec: Cell, uses: tuple[str, ...], source: Source) -> float:
    """Return how many images a method runs through the net."""
    epochs = float(str(spec.hyperparameters.get("epochs", PASSES)))
    samples = len(spec.classes) * (
        spec.shots or len(source.train_images) // len(source.train_images.class_names or "x")
    )
    retained = spec.retained if spec.retained is not None else len(source.train_images)
    return epochs * (samples + (retained if "retain" in uses else 0))
