"""A small grid on the bundled digits, and its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_grid import SMALL, run

from unhot.bench.grid import Grid, read_grid
from unhot.bench.store import Store


@pytest.fixture
def grid_of(tmp_path: Path) -> Callable[[str], Grid]:
    """Read a grid from text."""

    def read(text: str) -> Grid:
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return read_grid(path)

    return read


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small grid, run once."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "grid.toml").write_text(SMALL)
    run(read_grid(folder / "grid.toml"), Store(folder / "out"))
    return folder / "out"
