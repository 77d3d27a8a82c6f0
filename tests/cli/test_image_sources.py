"""Whatever holds the images: the commands that take SRC, with archives, lists and files that are broken."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from unhot.data.source import photo_input
from unhot.models.arch import build

Run = Callable[..., Any]
MASK = ["--method", "mask"]
pytestmark = pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning")


@pytest.fixture
def archive(folders: Path, tmp_path: Path) -> Path:
    """A zip file of train and test, beside an unwanted file."""
    with zipfile.ZipFile(tmp_path / "digits.zip", "w") as made:
        for file in sorted((folders / "tree").rglob("*.png")):
            made.write(file, f"digits/{file.relative_to(folders / 'tree')}")
        made.writestr("__MACOSX/digits/._x", b"x")
    return tmp_path / "digits.zip"


def test_samples_and_test_images_of_an_archive(unhot: Run, bundle: Path, archive: Path, tmp_path: Path) -> None:
    call = ["forget", bundle, "--class", 3, "--samples", archive, "--data", archive, *MASK]
    said = unhot(*call, "--shots", 5, "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert said.out.startswith("Forgot 3 with mask from 5 images in ")
    for sentence in (
        "digits.zip holds nothing but digits, which is taken in its place.",
        "hidden files and files that are not pictures are left out: __MACOSX.",
        "digits.zip has splits. Samples are taken from digits.zip, train split.",
    ):
        assert sentence in said.err
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["digits.zip", "u"]
    record = json.loads((tmp_path / "u" / "record.json").read_text())
    assert all(key.startswith("3/") for key in record["samples"]["indices"])


def test_broken_images_are_left_out_if_that_is_asked_for(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path
) -> None:
    lines = [f"{file},{file.parent.name}" for file in sorted((folders / "tree" / "train").rglob("*.png"))]
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "list.csv").write_text("\n".join(["path,label", "broken.png,3", *lines]))
    call = ["forget", bundle, "--class", 3, "--samples", tmp_path / "list.csv", *MASK]
    said = unhot(*call, "--out", tmp_path / "u")
    assert said.code == 2
    assert "broken.png is not a readable image (not in a format that is known)." in said.err
    assert "go on without such files: --skip-broken." in said.err
    assert not (tmp_path / "u").exists()
    said = unhot(*call, "--skip-broken", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert "list.csv: 1 of 13 images cannot be read and are left out: broken.png." in said.err
    assert said.out.startswith("Forgot 3 with mask from 12 images in ")
    said = unhot(*call, "--skip-broken", "--shots", 12, "--out", tmp_path / "v")
    assert "images of '3' that cannot be read are left out: broken.png." in said.err
    assert said.out.startswith("Forgot 3 with mask from 12 images in ")


def test_more_samples_than_are_of_use_are_drawn_and_said(
    unhot: Run, bundle: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unhot.cli.request.MOST", 7)
    said = unhot("forget", bundle, "--class", 3, "--samples", folders / "tree", *MASK, "--out", tmp_path / "u")
    assert "tree has up to 12 images of a class. Of each 7 are drawn; --shots changes that." in said.err
    assert said.out.startswith("Forgot 3 with mask from 7 images in ")


@pytest.mark.usefixtures("keep_generators")
def test_a_net_of_four_channels_is_told_by_its_means(unhot: Run, folders: Path, tmp_path: Path) -> None:
    spec = photo_input(16, channels=4)
    save_file(build("lenet5", 10, spec, {}).state_dict(), tmp_path / "w.safetensors")
    for file in sorted((folders / "tree" / "train" / "3").glob("*.png")):
        pixels = np.asarray(Image.open(file).convert("RGBA"))
        (tmp_path / "3").mkdir(exist_ok=True)
        np.save(tmp_path / "3" / f"{file.stem}.npy", pixels)
    call = [
        "forget",
        tmp_path / "w.safetensors",
        "--arch",
        "lenet5",
        "--class",
        3,
        *MASK,
        "--force",
        "--image-size",
        16,
    ]
    four = ["--mean", "0.5,0.5,0.5,0.5", "--std", "0.25"]
    said = unhot(*call, *four, "--samples", tmp_path / "3", "--out", tmp_path / "u")
    assert said.code == 0, said.err
    assert "4 channels, scaled to 0..1, mean 0.5, 0.5, 0.5, 0.5 subtracted" in said.err
    assert json.loads((tmp_path / "u" / "bundle.json").read_text())["input"]["channels"] == 4
    call = ["forget", tmp_path / "u", "--class", 5, *MASK, "--samples", folders / "nested"]
    said = unhot(*call, "--out", tmp_path / "v")
    assert said.code == 2
    assert "has 1 channels, and the model takes 4. Give pictures of 4." in said.err
