"""Runtime: device, precision, seed, progress and timing of one run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from unhot.records.choices import Precision
from unhot.records.environment import Environment
from unhot.runtime.device import pick_device
from unhot.runtime.distributed import ProcessGroup
from unhot.runtime.seeds import own_generators, stream_seed

LONG_RUN = 15.0  # seconds; a longer run is timed only once, since warming up hardly counts


class Progress(Protocol):
    """Shows the progress of a loop."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[int], object]]:
        """Open a bar for ``total`` items; the function that it yields takes the number of items newly done."""


@contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda done: None


def unannounced(what: str) -> None:
    """Say nothing."""


@dataclass
class Runtime:
    """What an algorithm needs beside its model and its data.

    Attributes:
        device: Device of the model and the batches.
        seed: The seed from which every stream is derived.
        precision: Precision in which autocast computes convolutions and products.
        progress: Shows the progress of loops that may take more than a few seconds.
        announce: Says in a sentence what is about to be done and how long it takes.
        cache: File that keeps what a method makes from the model alone, for the next request; none if None.
        steps: Optimiser steps so far.
        processes: The processes that share the work.
    """

    device: torch.device = field(default_factory=pick_device)
    seed: int = 0
    precision: Precision = "fp32"
    progress: Progress = field(default=no_progress, repr=False)
    announce: Callable[[str], object] = field(default=unannounced, repr=False)
    cache: Path | None = None
    steps: int = 0
    processes: ProcessGroup = field(default=ProcessGroup())

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a separate generator for a purpose; on the CPU, so that every device draws the same numbers."""
        return torch.Generator().manual_seed(stream_seed(self.seed, *purpose))

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """Compute in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
        """Descend one step along the gradient of ``loss``, its norm over all parameters clipped to ``clip``."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), clip)
        optimizer.step()
        self.steps += 1

    @torch.no_grad()
    def descend(self, weights: Iterable[Tensor], directions: Iterable[Tensor], share: float) -> None:
        """Step each weight against its direction; the length of a step is ``share`` of the weight's norm."""
        for weight, direction in zip(weights, directions, strict=True):
            length = share * weight.norm() / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
            weight.sub_(length * direction)
        self.steps += 1

    @contextmanager
    def seeded(self, *purpose: object) -> Iterator[None]:
        """Seed the global generators inside the block and restore their state after it.

        Layers such as dropout can draw from no others; hence only one thread at a time may be in such a block.
        """
        with own_generators(self.device):
            torch.manual_seed(stream_seed(self.seed, *purpose))
            yield

    def clock(self) -> float:
        """Return seconds on a steady clock once the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def median_seconds(self, run: Callable[[], object], repeats: int = 3, what: str = "timing") -> float:
        """Return the median time of some runs after one that warms up; a long first run is not repeated."""
        taken = []
        with self.progress(what, repeats + 1) as advance:
            for _ in range(repeats + 1):
                started = self.clock()
                run()
                taken.append(self.clock() - started)
                advance(1)
                if taken[0] > LONG_RUN:
                    return taken[0]
        return statistics.median(taken[1:])

    def peak_memory_bytes(self) -> int:
        """Return the peak memory of the device, or of this process on a CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if sys.platform == "win32":
            import psutil

            return int(psutil.Process().memory_info().peak_wset)
        import resource  # only on POSIX

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def environment(self) -> Environment:
        """Describe where this runs."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return Environment.here(name, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), self.precision)
