"""What methods pass over again and again comes in another order each time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toy_settings import SETTINGS

from unhot import methods
from unhot.runtime import Runtime
from unhot.testing import toy_problem


def passed_by(name: str, x: Tensor, seed: int = 0) -> list[int]:
    """Which of some images the net of a method is trained on, in order."""
    toy, found = toy_problem(), list[int]()
    known = {image.numpy().tobytes(): i for i, image in enumerate(x)}

    def note(layer: nn.Module, args: tuple[Tensor]) -> None:
        rows = [image.numpy().tobytes() for image in args[0].detach()]
        found.extend(known[row] for row in rows if row in known and layer.training)

    toy.model[0].register_forward_pre_hook(note)
    method = methods.get(name)(**SETTINGS.get(name, {}) | ({"shift": 0} if name == "retrain" else {}))
    method(toy.model, toy.samples(), retain=toy.retain(), seed=seed, runtime=Runtime(torch.device("cpu")))
    return found


@pytest.mark.filterwarnings("ignore::unhot.errors.UnhotWarning")
@pytest.mark.parametrize("name", [n for n in methods.catalogue if "epochs" in methods.get(n).model_fields])
def test_each_pass_over_the_retained_images_has_an_order_of_its_own(name: str) -> None:
    x, _ = toy_problem().retain()
    n = len(x)
    passed = passed_by(name, x)
    first, second = passed[:n], passed[n : 2 * n]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != sorted(first)
    assert first != second
    assert passed_by(name, x, seed=1)[:n] != first
