"""Traces that a run may not leave: a changed model, or global generators that were drawn from."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def state(model: nn.Module) -> dict[str, object]:
    """Describe all of a model that may not change, in a form that can be compared."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "weights or buffers": {n: v.numpy().tobytes() for n, v in model.state_dict().items()},
        "train/eval flags": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "hooks": [len(getattr(m, kind)) for m in model.modules() for kind in hooks],
        "layers": [(n, id(m)) for n, m in model.named_modules()],
    }


def generators() -> dict[str, bytes]:
    """Describe the global generators, in a form that can be compared."""
    states = {"torch": torch.get_rng_state().numpy(), "numpy": np.random.get_state(), "python": random.getstate()}
    return {name: pickle.dumps(state) for name, state in states.items()}


def left(before: dict[str, object], after: dict[str, object], drawn: dict[str, bytes], what: str) -> Iterator[str]:
    """Yield the traces of a run.

    Args:
        before: The :func:`state` of a model before the run.
        after: The state after the run.
        drawn: The :func:`generators` before the run.
        what: Name of the run in messages, with its article.
    """
    for part, value in before.items():
        if after[part] != value:
            yield f"{what} changed the caller's model: {part}."
    now = generators()
    for name, value in drawn.items():
        if now[name] != value:
            yield f"{what} used the global generator of {name}. Use runtime.generator(purpose)."


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block, and restore their state after it."""
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])
