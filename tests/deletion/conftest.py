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


@pytest.fixture(scope="session")
def carried_out_again(carried_out: Carried) -> Carried:
    """The second request on that model, of which :func:`second` gives each test a copy; read only."""
    home = carried_out.unlearned.parent
    made = Carried(carried_out.unlearned, home / "v", home / "v-audit", carried_out.keys, home / "record-2")
    forgot(made.original, 5, made.unlearned)
    assert certified(made, "R-2", made.record) == 0
    return made


def copied(made: Carried, home: Path) -> Carried:
    copies = {name: home / name for name in Carried._fields}
    for name, copy in copies.items():
        shutil.copytree(getattr(made, name), copy)
    return Carried(**copies)


@pytest.fixture
def carried(carried_out: Carried, tmp_path: Path) -> Carried:
    return copied(carried_out, tmp_path / "first")


@pytest.fixture
def second(carried_out_again: Carried, tmp_path: Path) -> Carried:
    return copied(carried_out_again, tmp_path / "second")
