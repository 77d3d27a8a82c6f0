"""Running the command line, in this process and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from unhot.cli import main
from unhot.data.source import Source

# digits, but a few epochs of them: the whole demo in a few seconds
SHORT = (
    f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); from support import for_epochs; "
    "import unhot.data.source as s; s.load_source = for_epochs(s.load_source, 4); "
    "from unhot.cli import main; sys.exit(main(sys.argv[1:]))"
)


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def unhot(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process."""

    def run(*argv: object) -> Said:
        capsys.readouterr()
        code = main([str(a) for a in argv])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command in a process of its own, with short training on digits; it is ended after the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*argv: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        running.append(subprocess.Popen([sys.executable, "-c", SHORT, *map(str, argv)], env=env, **pipes))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def folders(digits: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as image files: ``flat`` (threes), ``nested``, ``tree`` with train and test; three classes each."""
    root = tmp_path_factory.mktemp("folders")
    for split, images in (("train", digits.train_images), ("test", digits.test_images)):
        for label in (2, 3, 5):
            here = (images.y == label).nonzero().flatten()[:12]
            for i in here.tolist():
                picture = images.x.load(i).resize((16, 16))
                for place in ("tree/" + split, *(["nested"] if split == "train" else [])):
                    (root / place / str(label)).mkdir(parents=True, exist_ok=True)
                    picture.save(root / place / str(label) / f"{i}.png")
                if (split, label) == ("train", 3):
                    (root / "flat").mkdir(exist_ok=True)
                    picture.convert("RGB").resize((40, 30)).save(root / "flat" / f"{i}.png")
    return root


@pytest.fixture
def noise() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    return Image.fromarray(pixels)
