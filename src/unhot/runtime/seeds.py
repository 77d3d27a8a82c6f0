"""Seeds: streams of random numbers, and borrowing the global generators of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unhot.errors import OptionError
from unhot.shared_state import SHARED_STATE


def stream_seed(seed: int, *purpose: object) -> int:
    """Derive the seed of one stream of random numbers from a seed and the purpose of the stream.

    Raises:
        OptionError: The seed is not a whole number.
    """
    if not isinstance(seed, int):
        raise OptionError(f"A seed is a whole number. Got {seed!r}.")
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@contextmanager
def own_generators(device: torch.device | None = None) -> Iterator[None]:
    """Let the block draw from torch's global generators, and restore their state; other threads wait."""
    cuda = [device.index or 0] if device is not None and device.type == "cuda" else []
    with SHARED_STATE, torch.random.fork_rng(devices=cuda):
        yield
