"""What somebody does on the first day, and what they are told then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
pytestmark = [
    pytest.mark.filterwarnings("default::unhot.errors.SampleWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.ModelWarning"),
    pytest.mark.filterwarnings("default::unhot.errors.DataWarning"),
]
MASK = ["--method", "mask"]


def test_a_class_that_is_named_twice_is_forgotten_once(unhot: Run, bundle: Path, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"low": ["0", "1"]}')
    for i, (twice, source, more) in enumerate(
        [
            ([3, 3], "digits", []),
            ([3, "3"], folders / "nested", []),
            (["low", "low"], "digits", ["--label-map", tmp_path / "map.json"]),
        ]
    ):
        call = ["forget", bundle, *(a for c in twice for a in ("--class", c)), "--samples", source, *more, *MASK]
        said = unhot(*call, "--out", tmp_path / str(i))
        assert said.code == 0, said.err
        assert said.out.startswith(f"Forgot {twice[0]} ")


def test_samples_of_a_folder_of_splits_are_its_train_images(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", folders / "tree", *MASK]
    said = unhot(*call, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert f"Samples are taken from {folders / 'tree' / 'train'}." in said.err
    assert said.out.startswith("Forgot 3 with mask from 12 images in ")
