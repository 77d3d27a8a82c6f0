"""Device, precision, seeds and timing: the one place that knows what the machine is."""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from unhot.errors import OptionError
from unhot.record import Environment, Precision
from unhot.shared_state import SHARED_STATE
from unhot.team import Team

LONG_RUN = 15.0  # seconds of a run beside which warming up is nothing, so that it is timed once


class Progress(Protocol):
    """Shows the progress of a loop."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[int], object]]:
        """Open a bar for ``total`` pieces of work; the function that it gives is told how many more are done."""


@contextmanager
def no_progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda done: None


def pick_device(name: str | None = None) -> torch.device:
    """Return the device of that name; with none the best one of this machine.

    Raises:
        OptionError: There is no such device here, or it cannot compute.
    """
    # accelerate takes longer to import than most runs need, so it is loaded only to choose
    if name in (None, "auto"):
        if not (torch.cuda.is_available() or torch.accelerator.is_available()):
            return torch.device("cpu")
        from accelerate import PartialState

        best: torch.device = PartialState().device
        return best
    try:
        device = torch.device(str(name))
        torch.ones(1, device=device).sum().item()  # some devices, as meta, hold tensors and compute nothing
    except Exception as error:  # each back end raises what it likes
        raise OptionError(f"Device {name!r} cannot be used here. Try 'cpu', or leave it out.") from error
    return device


def stream_seed(seed: int, *purpose: object) -> int:
    """Derive the seed of one stream of random numbers from a seed and what the stream is for.

    Raises:
        OptionError: The seed is not a whole number.
    """
    if not isinstance(seed, int):
        raise OptionError(f"A seed is a whole number. Got {seed!r}.")
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@contextmanager
def own_generators(device: torch.device | None = None) -> Iterator[None]:
    """Let the block draw from torch's global generators, and give them back as they were; other threads wait."""
    cuda = [device.index or 0] if device is not None and device.type == "cuda" else []
    with SHARED_STATE, torch.random.fork_rng(devices=cuda):
        yield


@contextmanager
def usual_settings() -> Iterator[None]:
    """Compute in the block as torch does where nothing is set; what the caller has set is there again after it.

    That is the default number type, the default device, autocast, inference mode and whether gradients are recorded.
    The number of threads, deterministic algorithms and the precision of products stay as the caller has chosen.
    """
    kind = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda", "xpu", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if kind != torch.float32:
            stack.callback(torch.set_default_dtype, kind)
            torch.set_default_dtype(torch.float32)
        yield


@dataclass
class Runtime:
    """What an algorithm needs beside its model and its data.

    Attributes:
        device: Where the model and the batches are.
        seed: The seed from which every stream is derived.
        precision: What autocast computes convolutions and products in.
        progress: Shows the progress of loops that may take more than a few seconds.
        steps: Optimiser steps so far.
        team: The processes that share the work.
    """

    device: torch.device = field(default_factory=pick_device)
    seed: int = 0
    precision: Precision = "fp32"
    progress: Progress = field(default=no_progress, repr=False)
    steps: int = 0
    team: Team = field(default=Team())

    def generator(self, *purpose: object) -> torch.Generator:
        """Return a generator of its own for a purpose; on the CPU, so that every device draws the same numbers."""
        return torch.Generator().manual_seed(stream_seed(self.seed, *purpose))

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """Compute in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
        """Descend one step along the gradient of ``loss``, its norm over all parameters clipped to ``clip``."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(_parameters(optimizer), clip)
        optimizer.step()
        self.steps += 1

    @torch.no_grad()
    def descend(self, weights: Iterable[Tensor], directions: Iterable[Tensor], share: float) -> None:
        """Step each weight against its direction, by ``share`` of the weight's own norm whatever the direction's."""
        for weight, direction in zip(weights, directions, strict=True):
            length = share * weight.norm() / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
            weight.sub_(length * direction)
        self.steps += 1

    @contextmanager
    def seeded(self, *purpose: object) -> Iterator[None]:
        """Seed the global generators inside the block and give the caller's back after it.

        Layers such as dropout draw from these and from no other, so that one thread at a time may be in such a block.
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
        """Return the median of how long some runs take, after one that warms up; a long first run stands for all."""
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
        """Return the highest memory of the device, or of this process on a CPU."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if sys.platform == "win32":
            import psutil

            return int(psutil.Process().memory_info().peak_wset)
        import resource  # POSIX alone has it

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def environment(self) -> Environment:
        """Describe where this runs."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return Environment.here(name, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), self.precision)


def fast_bf16(device: torch.device) -> bool:
    """Tell whether the device computes bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[nn.Parameter]:
    return (p for group in optimizer.param_groups for p in group["params"])
