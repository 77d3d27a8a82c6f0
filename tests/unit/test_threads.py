"""Several threads of one process get what one gets, and leave the process as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

import unhot
from support import DEVICE
from unhot.data.augment import Augment
from unhot.data.images import LabelledImages
from unhot.methods.base import Data, Method, Outcome, Use
from unhot.models.classifier import Classifier
from unhot.records.model import InputSpec
from unhot.report.svg import drawing
from unhot.runtime import Runtime, own_generators
from unhot.training import TrainSettings, fit

SPEC = InputSpec(height=4, width=4, channels=1, mean=(0.5,), std=(0.25,))


def in_threads(work: Callable[[int], object], count: int = 8) -> list[object]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


@pytest.fixture
def net() -> nn.Module:
    with own_generators():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 3)).eval()


@pytest.fixture
def images(generator: torch.Generator) -> LabelledImages:
    x = torch.randint(0, 256, (48, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return LabelledImages(x, torch.arange(48) % 3, ("a", "b", "c"), "toy", tuple(range(48)))


def test_dropout_in_training_is_that_of_one_thread(net: nn.Module, images: LabelledImages) -> None:
    model = Classifier.wrap(net, class_names=("a", "b", "c"), input=SPEC)

    def trained(seed: int) -> str:
        mine = model.copy()
        fit(mine, images, TrainSettings(epochs=6, batch_size=8), Augment(), Runtime(DEVICE, seed=seed))
        with own_generators():
            nn.Linear(100, 100)  # draws its first weights from the global generators
        return mine.sha256()

    alone = [trained(seed) for seed in range(8)]
    assert in_threads(trained) == alone


class Drops(Method):
    """Trains with dropout on."""

    name: ClassVar[str] = "drops"
    uses: ClassVar[tuple[Use, ...]] = ("forget",)

    def run(self, model: Classifier, data: Data, runtime: Runtime) -> Outcome:
        optimizer = SGD(model.module.parameters(), 0.01)
        model.module.train()
        for _ in range(30):
            runtime.step(-cross_entropy(model.logits(data.forget.x), data.forget.y), optimizer)
        return Outcome(model, "done")


@pytest.mark.filterwarnings("ignore:Did not forget")  # it only draws
def test_dropout_in_a_method_is_that_of_one_thread(net: nn.Module, images: LabelledImages) -> None:
    fit(Classifier.wrap(net, input=SPEC), images, TrainSettings(epochs=20, batch_size=8), Augment(), Runtime(DEVICE))
    x = images.inputs(torch.arange(48), SPEC, DEVICE)
    with torch.no_grad():
        found = net(x).argmax(1)
    chosen = (found == 1).nonzero().flatten()[:4]
    samples = unhot.draw((x[chosen], found[chosen]), classes=[1], shots=len(chosen), seed=0)

    def forgotten(seed: int) -> str:
        return unhot.forget(net, samples, method=Drops(), seed=seed, device="cpu").record.weights_sha256

    alone = [forgotten(seed) for seed in range(8)]
    assert in_threads(forgotten) == alone
    assert len(set(alone)) == 8


def test_saving_in_threads_leaves_the_process_as_it_was(net: nn.Module, tmp_path: Path) -> None:
    model = Classifier.wrap(net, class_names=("a", "b", "c"), input=SPEC)
    before = sys.stderr, logging.root.manager.disable, list(warnings.filters), warnings.showwarning

    def save(i: int) -> str:
        unhot.save(model, tmp_path / str(i))
        with drawing():
            return unhot.load(tmp_path / str(i)).sha256()

    assert set(in_threads(save, 4)) == {model.sha256()}
    assert (sys.stderr, logging.root.manager.disable, list(warnings.filters), warnings.showwarning) == before


WITHOUT_POSIX = """
import importlib, pkgutil, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios", "readline", "syslog"):
    sys.modules.setdefault(name, None)
import unhot
for module in pkgutil.walk_packages(unhot.__path__, "unhot."):
    if module.name != "unhot.__main__":
        importlib.import_module(module.name)
print("imported")
"""


@pytest.mark.process
def test_nothing_needs_a_module_that_windows_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
