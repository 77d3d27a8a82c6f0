"""Each method descends by the optimiser that its docstring names: a single step does not tell momentum from none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from toy_settings import SETTINGS

from unhot import methods
from unhot.runtime import Runtime
from unhot.testing import toy_problem


class Optimiser(NamedTuple):
    kind: str
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False


MOMENTUM = Optimiser("SGD", momentum=0.9)
DECAY = Optimiser("SGD", momentum=0.9, weight_decay=5e-4)
ADAM = Optimiser("Adam")
OPTIMISERS = {
    "nhle-guard": ADAM,  # but in bare mode, whose images are made by another Adam
    "nhle-renew": ADAM,
    "neggrad": MOMENTUM,
    "random-label": MOMENTUM,
    "boundary-shrink": MOMENTUM,
    "mu-mis": MOMENTUM,
    "jit": Optimiser("SGD"),
    "delete": MOMENTUM,
    "scrub-and-learn": MOMENTUM,
    "pour-d": MOMENTUM,
    "spotter": DECAY,
    "wf-net": ADAM,
    "tarf": MOMENTUM,
    "ugradsl": MOMENTUM,
    "ugradsl+": MOMENTUM,
    "neggrad+": MOMENTUM,
    "finetune": DECAY,
    "salun": DECAY,
    "scrub": ADAM._replace(weight_decay=5e-4),
    "retrain": DECAY._replace(nesterov=True),
}
WITHOUT = {"mask", "pour-p", "ssd", "lfssd", "svd", "nhle-cwm", "forsaken"}


def test_every_method_is_in_one_of_the_lists() -> None:
    assert OPTIMISERS.keys() | WITHOUT == set(methods.catalogue)


def watched(name: str, watch: Callable[[torch.optim.Optimizer], None], **settings: Any) -> None:
    """Run a method on the toy problem, and look at its optimiser before each of its steps."""
    toy, method = toy_problem(), methods.get(name)(**SETTINGS.get(name, {}) | settings)
    retain = toy.retain() if "retain" in method.uses else None
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: watch(optimizer))
    try:
        method(toy.model, toy.samples(), retain=retain, runtime=Runtime(torch.device("cpu")))
    finally:
        hook.remove()


@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")
@pytest.mark.parametrize("name", list(methods.catalogue))
def test_a_method_uses_the_optimiser_of_its_docstring(name: str) -> None:
    seen = set[Optimiser]()

    def note(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            values = (group.get("momentum", 0.0), group["weight_decay"], group.get("nesterov", False))
            seen.add(Optimiser(type(optimizer).__name__, *values))

    watched(name, note)
    assert seen == ({OPTIMISERS[name]} if name in OPTIMISERS else set())


@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")
@pytest.mark.parametrize("name", [n for n in methods.catalogue if "clip" in methods.get(n).model_fields])
def test_no_step_of_a_run_has_a_gradient_longer_than_the_clip(name: str) -> None:
    clip, lengths = 1e-3, list[float]()

    def note(optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    watched(name, note, clip=clip)
    assert max(lengths) == pytest.approx(clip, rel=1e-3)
