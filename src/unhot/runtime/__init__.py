"""The machine and how it is used: device, precision, seeds, several processes."""

from __future__ import annotations

from unhot.runtime.device import pick_device, usual_precision
from unhot.runtime.run import LONG_RUN, Progress, Runtime, no_progress
from unhot.runtime.seeds import own_generators, stream_seed
from unhot.runtime.settings import usual_settings

__all__ = [
    "LONG_RUN",
    "Progress",
    "Runtime",
    "no_progress",
    "own_generators",
    "pick_device",
    "stream_seed",
    "usual_precision",
    "usual_settings",
]
