"""What models are called when they are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unhot.cli.audit import unique_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["x/a", "y/a"], ["a-1", "a-2"]),
        (["x/a", "a-1", "y/a"], ["a-2", "a-1", "a-3"]),  # a number that is somebody's name is left out
        (["x/model", "y/Model"], ["model-1", "Model-2"]),  # one folder on Windows and macOS
        (["\u00e9", "x/e\u0301"], ["\u00e9-1", "e\u0301-2"]),
        (["a/..", "a/b/../c", "./d/."], ["HERE", "c", "d"]),
        (["/"], ["model"]),
        (["x/report.html", "b"], ["report.html-1", "b"]),  # the page
        (["a", "a", "a"], ["a-1", "a-2", "a-3"]),
    ],
)
def test_every_model_has_a_name_of_its_own(paths: list[str], names: list[str]) -> None:
    found = unique_names([Path(p) for p in paths])
    assert found == [n.replace("HERE", Path.cwd().name) for n in names]


def test_models_of_odd_names_are_compared(unhot: Callable[..., Any], bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    twice = tmp_path / "x" / ".." / bundle.name
    (tmp_path / bundle.name).symlink_to(bundle)
    call = ["compare", twice, bundle, "--original", bundle, "--class", "3", "--data", "digits", "--quick"]
    said = unhot(*call, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    found = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert found == [f"{bundle.name}-1", f"{bundle.name}-2", "report.html"]
