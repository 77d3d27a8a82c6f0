"""A request that was carried out: a model that forgot a digit, its audit, a pair of keys, and the signed record."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from requested import Carried, call, certified, forgot


@pytest.fixture(scope="session")
def carried_out(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Carried:
    """The request of which :func:`carried` gives each test a copy; read only."""
    home = tmp_path_factory.mktemp("request")
    made = Carried(bundle, home / "u", home / "u-audit", home / "keys", home / "record")
    forgot(bundle, 3, made.unlearned)
    assert call("keys", "--out", made.keys) == 0
    assert certified(made, "R-1", made.record) == 0
    return made


@pytest.fixture
def carried(carried_out: Carried, tmp_path: Path) -> Carried:
    copies = {name: tmp_path / name for name in Carried._fields if name != "original"}
    for name, copy in copies.items():
        shutil.copytree(getattr(carried_out, name), copy)
    return Carried(carried_out.original, **copies)
