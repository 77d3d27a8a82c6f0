"""What all tests share: one thread a worker, small trained nets, and guards that fail a test that leaves a trace."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"

import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import unhot.evaluation.auditor  # noqa: F401 - imported here, since importing rich draws a random number
from support import for_epochs
from unhot.data.samples import Samples, draw
from unhot.data.source import Source, load_source
from unhot.methods import catalogue as methods
from unhot.models.bundle import save
from unhot.models.classifier import Classifier
from unhot.records.train import TrainRecord
from unhot.runtime import Runtime
from unhot.training import train

settings.register_profile(
    "unhot",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("unhot")
torch.set_num_threads(1)

FORGOTTEN = 3
EPOCHS = 4


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "process: starts the command line in a process of its own")


def generators() -> tuple[object, ...]:
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), (kind, np.asarray(keys).tobytes(), *rest), random.getstate()


def surroundings() -> dict[str, str]:
    own = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR")  # the second is set by torch itself
    return {k: v for k, v in os.environ.items() if k not in own}


@pytest.fixture(autouse=True)
def _no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a test that changes global generators, the environment, the signal handler, or writes to its cwd."""
    home, empty = Path.cwd(), tmp_path_factory.mktemp("cwd")
    os.chdir(empty)
    before, env, handler = generators(), surroundings(), signal.getsignal(signal.SIGINT)
    yield
    os.chdir(home)
    assert sorted(p.name for p in empty.iterdir()) == [], "files were left in the working directory"
    changed = [n for n, a, b in zip(("torch", "numpy", "python"), before, generators(), strict=True) if a != b]
    assert not changed, f"global generators were used: {changed}"
    assert surroundings() == env, "the environment was changed"
    assert signal.getsignal(signal.SIGINT) == handler, "the handler of Ctrl-C was changed"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a test opened a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def digits() -> Source:
    """The bundled handwritten digits: 1,437 train and 360 test images, 8x8."""
    return load_source("digits")


@pytest.fixture(scope="session")
def trained(digits: Source) -> tuple[Classifier, TrainRecord]:
    """A LeNet-5 on the digits, and the record of its training; seconds to make, about 0.95 on test images."""
    return train(digits, "lenet5", settings={"epochs": EPOCHS}, runtime=Runtime(torch.device("cpu")))


@pytest.fixture(scope="session")
def original(trained) -> Classifier:
    return trained[0]


@pytest.fixture(scope="session")
def bundle(original: Classifier, trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained LeNet-5 as a bundle; read only."""
    folder = tmp_path_factory.mktemp("models") / "original"
    save(original, folder, trained[1])
    return folder


@pytest.fixture(scope="session")
def samples(digits: Source) -> Samples:
    return draw(digits.train_images, [FORGOTTEN], shots=16, seed=0)


@pytest.fixture
def short_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line train on the digits for a few epochs only."""
    monkeypatch.setattr("unhot.data.source.load_source", for_epochs(load_source, EPOCHS))


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tests know nothing of the methods that one registers."""
    for known in ("_entries", "_loaded"):
        monkeypatch.setattr(methods, known, dict(getattr(methods, known)))


@pytest.fixture
def keep_generators() -> Iterator[None]:
    """Give the global generators back their state after a test that is meant to use them."""
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(saved[0])
    np.random.set_state(saved[1])
    random.setstate(saved[2])


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)
