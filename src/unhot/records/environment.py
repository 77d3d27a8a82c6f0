"""Where something was computed, and its cost."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from unhot.records.base import Count, Seconds, Stored
from unhot.records.choices import Precision
from unhot.version import __version__


class Environment(Stored):
    """Where something was computed; no names of machines, users or folders.

    Attributes:
        cpu_threads: Number of threads of torch, on which the order of sums depends.
        cpu_capability: The instruction set that torch uses on a CPU, such as AVX2; None in older records.
        precision: Precision of convolutions and products; None in older records.
    """

    unhot: str
    python: str
    torch: str
    torchvision: str
    platform: str
    processor: str
    cpu_threads: int
    device: str
    cpu_capability: str | None = None
    precision: Precision | None = None

    @classmethod
    def here(
        cls,
        device: str = "cpu",
        threads: int | None = None,
        cpu_capability: str | None = None,
        precision: Precision | None = None,
    ) -> Environment:
        """Describe this process; reads package metadata, so torch need not be imported."""
        return cls(
            unhot=__version__,
            python=".".join(map(str, sys.version_info[:3])),
            torch=version("torch"),
            torchvision=version("torchvision"),
            platform=f"{platform.system()} {platform.machine()}",
            processor=_processor(),
            cpu_threads=threads or os.cpu_count() or 1,
            device=device,
            cpu_capability=cpu_capability,
            precision=precision,
        )


class Cost(Stored):
    """The cost of a run.

    Attributes:
        seconds: Wall time of the algorithm itself.
        peak_memory_bytes: Highest resident memory of the process (CPU) or allocated memory of the device.
        steps: Optimiser steps.
        planned_seconds: Wall time that was announced before the run, where one was.
    """

    seconds: Seconds
    peak_memory_bytes: Count
    steps: Count
    planned_seconds: Seconds | None = None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
