from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from unhot.data import catalogue
from unhot.data.augment import Augment
from unhot.data.images import LabelledImages, Pictures
from unhot.data.named import load_named
from unhot.data.source import FOLDER_AUGMENT, folder_input, load_source, photo_input
from unhot.errors import DataError, DataWarning, UnknownNameError

Make = Callable[..., Image.Image]


def test_digits_are_split_and_scaled() -> None:
    source, bunch = load_source("digits"), load_digits()
    assert (len(source.train_images), len(source.test_images)) == (1438, 359)
    assert source.train_images.class_names == tuple("0123456789")
    assert source.test_images.y.tolist() == bunch.target[4::5].tolist()
    assert set(source.train_images.y.tolist()) == set(range(10))
    pixels = source.test_images.x.pixels
    assert pixels.dtype == torch.uint8
    expected = np.round(bunch.images[4::5] * 255 / 16)
    assert np.array_equal(pixels[:, 0].numpy(), expected)
    assert set(source.train_images.digests()).isdisjoint(source.test_images.digests())
    assert (source.input.shape, source.name) == ((1, 16, 16), "digits")
    assert source.test_images.origin == "digits, test split"


def test_means_and_deviations_of_the_digits_are_those_of_their_inputs() -> None:
    source = load_source("digits")
    x = torch.cat([x for x, _ in source.train_images.batches(source.input, torch.device("cpu"))])
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.1  # that of 8x8; doubling the size smooths


@pytest.mark.parametrize("name", [n for n in catalogue if n != "digits"])
def test_a_named_set_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"The data set '{name}' is not in {tmp_path}/here. Name its folder with"):
        load_named(name, True, tmp_path / "here")
    with monkeypatch.context() as patch:
        patch.setenv("UNHOT_DATA", str(tmp_path / "elsewhere"))
        with pytest.raises(DataError, match=r"elsewhere"):
            load_source(name)


def test_neither_a_name_nor_a_folder() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown.*'fashionmnist'.*'fashion-mnist'"):
        load_source("fashionmnist")


def test_a_folder_without_splits_is_a_test_split(class_folders: Path) -> None:
    source = load_source(str(class_folders))
    assert (source.name, source.train, len(source.test_images)) == ("set", None, 5)
    assert (source.input, source.augment) == (None, FOLDER_AUGMENT)
    with pytest.raises(DataError, match=r"train.*folders.*folder"):
        _ = source.train_images


def test_a_folder_with_splits(class_folders: Path, tmp_path: Path, picture: Make) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    class_folders.rename(root / "train")
    only = load_source(str(root))
    assert (len(only.train_images), only.test) == (5, None)
    with pytest.raises(DataError, match=r"split.*folders.*folder"):
        _ = only.test_images
    for name in ("a", "c"):
        (root / "test" / name).mkdir(parents=True)
        picture().save(root / "test" / name / "0.png")
    with pytest.raises(DataError, match=r"different.*b.*c"):
        load_source(str(root))
    (root / "test" / "c").rename(root / "test" / "b")
    both = load_source(str(root))
    assert (both.name, len(both.train_images), len(both.test_images)) == ("tree", 5, 2)
    assert both.train_images.class_names == both.test_images.class_names == ("a", "b")


@pytest.mark.parametrize("lacking", ["train", "test"])
def test_a_split_may_lack_a_class_that_was_deleted(tmp_path: Path, picture: Make, lacking: str) -> None:
    for split in ("train", "test"):
        for name in ("a", "b", "c"):
            if (split, name) != (lacking, "a"):
                (tmp_path / "tree" / split / name).mkdir(parents=True)
                picture().save(tmp_path / "tree" / split / name / "0.png")
    with pytest.warns(DataWarning, match=f"tree: {lacking} has no images of a"):
        source = load_source(str(tmp_path / "tree"))
    train, test = source.train_images, source.test_images
    assert train.class_names == test.class_names == ("a", "b", "c")
    whole, part = (test, train) if lacking == "train" else (train, test)
    assert (whole.y.tolist(), part.y.tolist()) == ([0, 1, 2], [1, 2])


def test_the_folder_that_one_is_in_has_a_name(class_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(class_folders)
    assert load_source(".").name == "set"


def as_set(*pictures: Image.Image) -> LabelledImages:
    y = torch.zeros(len(pictures), dtype=torch.int64)
    return LabelledImages(Pictures(lambda i: pictures[i], len(pictures)), y, ("a",), "p", tuple(range(len(pictures))))


@pytest.mark.parametrize(
    ("sizes", "mode", "shape"),
    [
        ([(28, 28)] * 3, "L", (1, 28, 28)),
        ([(224, 224)], "RGB", (3, 224, 224)),
        ([(225, 225)], "RGB", (3, 64, 64)),
        ([(32, 24)] * 2, "RGB", (3, 64, 64)),
        ([(32, 32), (33, 33)], "RGB", (3, 64, 64)),
        ([(16, 16)], "RGBA", (3, 16, 16)),
        ([(16, 16)], "1", (1, 16, 16)),
    ],
)
def test_the_input_for_pictures_is_told_from_them(
    picture: Make, sizes: list[tuple[int, int]], mode: str, shape: tuple[int, ...]
) -> None:
    spec = folder_input(as_set(*(picture(s, mode) for s in sizes)))
    assert spec.shape == shape
    assert spec == photo_input(shape[1], shape[0])


def test_one_colour_picture_among_grey_ones_makes_the_input_colour(picture: Make) -> None:
    assert folder_input(as_set(picture(), picture(mode="RGB"), picture())).channels == 3


@pytest.mark.parametrize("mode", ["I;16", "LA"])
def test_grey_of_other_depths_stays_grey(mode: str) -> None:
    assert folder_input(as_set(Image.new(mode, (8, 8)))).channels == 1


def test_only_some_of_many_pictures_are_looked_at() -> None:
    loads: list[int] = []

    def load(i: int) -> Image.Image:
        loads.append(i)
        return Image.new("L", (8, 8))

    folder_input(LabelledImages(Pictures(load, 1000), torch.zeros(1000).long(), None, "p", tuple(range(1000))))
    assert 32 <= len(loads) <= 64
    assert max(loads) > 900


def test_tensors_do_not_tell_the_input(numbered: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"pictures.*tell.*inputs"):
        folder_input(numbered)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("UNHOT_DATA"), reason="UNHOT_DATA does not name the real data sets")
@pytest.mark.parametrize(
    ("name", "train", "test", "first", "flip"),
    [
        ("mnist", 60_000, 10_000, [5, 0, 4, 1, 9], False),
        ("fashion-mnist", 60_000, 10_000, [9, 0, 0, 3, 0], True),
        ("cifar10", 50_000, 10_000, [6, 9, 9, 4, 1], True),
        ("cifar100", 50_000, 10_000, [19, 29, 0, 11, 1], True),
    ],
)
def test_real_data(name: str, train: int, test: int, first: list[int], flip: bool) -> None:
    source = load_source(name)
    assert (len(source.train_images), len(source.test_images)) == (train, test)
    assert source.train_images.y[:5].tolist() == first
    assert len(set(source.train_images.class_names)) == int(source.train_images.y.max()) + 1
    assert source.train_images.y.bincount().min() > 0.8 * train / len(source.train_images.class_names)
    assert source.train_images.x.pixels.shape[1:] == source.input.shape
    x = source.train_images.inputs(torch.arange(0, train, 10), source.input, torch.device("cpu"))
    assert x.mean((0, 2, 3)).abs().max() < 0.03
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.05
    assert source.augment == Augment(source.augment.shift, flip)
