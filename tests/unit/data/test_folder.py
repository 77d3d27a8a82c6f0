from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support import class_images
from unhot.data import tree
from unhot.data.containers.listed import read_contents
from unhot.data.decoding import open_picture
from unhot.data.samples import draw, folder
from unhot.data.source import load_source
from unhot.errors import DataError, DataWarning, UnknownNameError
from unhot.records.model import InputSpec

Make = Callable[..., Image.Image]


def test_class_folders_by_name(class_folders: Path) -> None:
    images = class_images(class_folders)
    assert images.class_names == ("a", "b")
    assert images.y.tolist() == [0, 0, 0, 1, 1]
    assert images.keys == ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png")
    assert images.origin == "set"


def test_pixels_are_those_of_the_files(class_folders: Path, spec: Callable[..., InputSpec]) -> None:
    images = class_images(class_folders)
    got = images.pixels(torch.tensor([4, 1]), spec(6))
    for row, key in zip(got, ("b/1.png", "a/1.png"), strict=True):
        assert np.array_equal(row[0].numpy(), np.asarray(Image.open(class_folders / key).copy()))


def test_hidden_files_and_other_files_are_left_out_and_said(class_folders: Path, picture: Make) -> None:
    (class_folders / ".git").mkdir()
    (class_folders / "__MACOSX" / "a").mkdir(parents=True)
    (class_folders / "__MACOSX" / "a" / "._0.png").write_bytes(b"no image")
    (class_folders / "a" / "notes.txt").write_text("no image")
    (class_folders / "a" / ".hidden.png").write_bytes(b"no image")
    (class_folders / "a" / "Thumbs.db").write_bytes(b"no image")
    picture().save(class_folders / "a" / "LOUD.PNG")
    left = r".git, __MACOSX, a/.hidden.png, a/Thumbs.db, a/notes.txt"
    with pytest.warns(DataWarning, match=rf"set: hidden files and files that are not pictures are left out: {left}\."):
        images = class_images(class_folders)
    assert images.class_names == ("a", "b")
    assert images.keys[:4] == ("a/0.png", "a/1.png", "a/2.png", "a/LOUD.PNG")


def test_folders_in_class_folders_are_of_their_class(class_folders: Path, picture: Make) -> None:
    (class_folders / "a" / "front" / "deep").mkdir(parents=True)
    picture(seed=9).save(class_folders / "a" / "front" / "deep" / "x.png")
    (class_folders / "a" / "old.png").mkdir()  # named like a picture
    picture(seed=8).save(class_folders / "a" / "old.png" / "y.png")
    images = class_images(class_folders)
    assert images.keys == (
        "a/0.png",
        "a/1.png",
        "a/2.png",
        "a/front/deep/x.png",
        "a/old.png/y.png",
        "b/0.png",
        "b/1.png",
    )
    assert images.y.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_links_are_followed_once(class_folders: Path) -> None:
    (class_folders / "c").symlink_to(class_folders / "b", target_is_directory=True)
    (class_folders / "a" / "up").symlink_to(class_folders, target_is_directory=True)
    (class_folders / "a" / "z.png").symlink_to(class_folders / "nowhere.png")
    os.mkfifo(class_folders / "a" / "pipe.png")
    names = ("a/0.png", "a/1.png", "a/2.png", "a/z.png", "b/0.png", "b/1.png", "c/0.png", "c/1.png")
    with pytest.warns(
        DataWarning, match=r"hidden files and files that are not pictures are left out: a/pipe.png, a/up\."
    ):
        assert class_images(class_folders).keys == names


def test_train_and_test_trees(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    class_folders.rename(root / "validation")
    only = read_contents(root)
    assert (only.whole, only.train, len(only.test)) == (None, None, 5)
    (root / "Test").mkdir()
    for name in ("a", "b"):
        (root / "Test" / name).mkdir()
        (root / "validation" / name / "0.png").rename(root / "Test" / name / "0.png")
    with pytest.warns(DataWarning, match="tree: the split validation is left out"):
        both = read_contents(root)
    assert (both.train, len(both.test), both.test.origin) == (None, 2, "tree, test split")
    (root / "train").mkdir()
    with pytest.raises(DataError, match=r"tree/train holds no class folders"):
        read_contents(root)
    with pytest.raises(DataError, match=r"folder.*nowhere.*Check.*path"):
        read_contents(tmp_path / "nowhere")


def test_a_folder_around_all_others_is_gone_through(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "download"
    root.mkdir()
    class_folders.rename(root / "set-1.0")
    with pytest.warns(DataWarning, match=r"download holds nothing but set-1.0, which is taken in its place"):
        images = class_images(root)
    assert (images.class_names, images.keys[0], images.origin) == (("a", "b"), "a/0.png", "set-1.0")
    samples = folder(root, ["set-1.0"])  # a class of that name
    assert (samples.classes, len(samples)) == (("set-1.0",), 5)


def test_empty_class_folders_are_named_all_at_once(class_folders: Path) -> None:
    for name in ("c", "d"):
        (class_folders / name).mkdir()
    (class_folders / "d" / "notes.txt").write_text("no image")
    with pytest.warns(DataWarning, match="notes.txt"), pytest.raises(DataError, match=r"no images in c, d.*remove"):
        class_images(class_folders)


def truncated(picture: Make, folder: Path, suffix: str) -> str:
    file = folder / f"cut.{suffix}"
    picture((64, 64), "RGB").save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    return file.name


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "bmp", "gif", "tiff"])
def test_broken_files_are_named_all_at_once_or_left_out(
    class_folders: Path, picture: Make, suffix: str, spec: Callable[..., InputSpec]
) -> None:
    truncated(picture, class_folders / "a", suffix)
    (class_folders / "b" / "text.jpg").write_text("no image")
    images = class_images(class_folders)
    named = f"set: 2 of 7 images cannot be used: a/cut.{suffix}, b/text.jpg. .*set/a/cut.{suffix} is not a readable"
    with pytest.raises(DataError, match=f"{named}.*skip_broken=True") as error:
        images.cached(spec(6))
    assert "without such files: --skip-broken" in error.value.command_line
    left_out = rf"set: 2 of 7 images cannot be read and are left out: a/cut.{suffix}, b/text.jpg\."
    with pytest.warns(DataWarning, match=left_out):
        rest = load_source(str(class_folders), skip_broken=True).test_images
    assert rest.keys == ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png")
    assert torch.equal(rest.cached(spec(6)).x, images.select(torch.tensor([0, 1, 2, 4, 5])).cached(spec(6)).x)
    with pytest.warns(DataWarning, match=left_out):
        assert len(folder(class_folders, skip_broken=True)) == 5


def test_images_are_drawn_before_they_are_decoded(
    class_folders: Path, picture: Make, spec: Callable[..., InputSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 files, three of which are broken, only those drawn are opened, and each once for its pixels."""
    for i in range(300):
        (class_folders / "a" / f"n{i:03}.png").write_bytes((class_folders / "a" / "0.png").read_bytes())
    opened: list[Path] = []
    monkeypatch.setattr(tree, "open_picture", lambda path: (opened.append(path), open_picture(path))[1])
    images = class_images(class_folders)
    samples = draw(images, ["a"], shots=16)
    assert opened == []
    samples.images.inputs(torch.arange(16), spec(6), torch.device("cpu"))
    assert len(opened) == len(set(opened)) == 16
    drawn = [str(k) for k in samples.images.keys]
    for key in drawn[:3]:
        (class_folders / key).write_bytes(b"no image")
    with pytest.warns(DataWarning, match=rf"set: images of 'a' that cannot be read are left out: .*{drawn[0]}"):
        others = draw(images, ["a"], shots=16, skip_broken=True)
    assert len(opened) < 16 + 40
    assert len(others) == 16
    assert set(drawn[3:]) < set(others.images.keys)
    assert not set(drawn[:3]) & set(others.images.keys)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "tiff"])
def test_a_truncated_file_is_named_at_the_latest_when_it_is_decoded(
    class_folders: Path, picture: Make, suffix: str, spec: Callable[..., InputSpec]
) -> None:
    truncated(picture, class_folders / "a", suffix)
    with pytest.raises(DataError, match=f"a/cut.{suffix}"):
        class_images(class_folders).cached(spec(6))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])  # Pillow 13 itself misreads turned TIFF files
def test_a_turned_file_is_upright(tmp_path: Path, suffix: str, spec: Callable[..., InputSpec]) -> None:
    shown = np.zeros((16, 32), np.uint8)
    shown[:, :16] = 240
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of how it is shown
    (tmp_path / "a").mkdir()
    Image.fromarray(np.rot90(shown).copy()).save(tmp_path / "a" / f"x.{suffix}", exif=exif)
    got = class_images(tmp_path).pixels(torch.tensor([0]), spec(16, 32))[0, 0].int()
    assert (got - torch.from_numpy(shown)).abs().max() < 20


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("P", "gif"), ("1", "bmp")]
)
def test_files_of_any_mode_and_size(
    tmp_path: Path, picture: Make, mode: str, suffix: str, spec: Callable[..., InputSpec]
) -> None:
    (tmp_path / "a").mkdir()
    for i, size in enumerate([(5, 9), (300, 20), (1, 1)]):
        picture(size, mode).save(tmp_path / "a" / f"{i}.{suffix}")
    for channels in (1, 3):
        got = class_images(tmp_path).cached(spec(8, 12, channels)).x
        assert got.shape == (3, channels, 8, 12)
        assert got[2].flatten(1).unique(dim=1).shape[1] == 1  # the picture of one pixel


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path, spec: Callable[..., InputSpec]) -> None:
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.array([[0, 90], [180, 250]], np.uint8)).convert("P")
    image.save(tmp_path / "a" / "x.png", transparency=bytes([0, 255]))
    got = class_images(tmp_path).pixels(torch.tensor([0]), spec(2))
    assert got.tolist() == [[[[0, 90], [180, 250]]]]


def test_samples_of_a_flat_folder(class_folders: Path) -> None:
    samples = folder(class_folders / "b")
    assert samples.classes == ("b",)
    assert (samples.images.class_names, samples.images.y.tolist()) == (("b",), [0, 0])
    assert samples.images.keys == ("0.png", "1.png")
    assert len(samples) == 2


def test_samples_of_a_flat_folder_of_a_class_that_is_named(class_folders: Path) -> None:
    samples = folder(str(class_folders / "a"), ["Sandal"])
    assert (samples.classes, samples.images.class_names, samples.images.y.tolist()) == (
        ("Sandal",),
        ("Sandal",),
        [0, 0, 0],
    )
    by_index = folder(str(class_folders / "a"), [5])
    assert (by_index.classes, by_index.images.class_names, by_index.images.y.tolist()) == ((5,), None, [5, 5, 5])


def test_class_folders_that_are_numbers_are_in_their_order(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    for i in range(12):
        (tmp_path / str(i)).mkdir()
        picture().save(tmp_path / str(i) / "one.png")
    assert class_images(tmp_path).class_names == tuple(str(i) for i in range(12))
    (tmp_path / "3").rename(tmp_path / "x3")
    assert class_images(tmp_path).class_names == tuple(sorted([*(str(i) for i in range(12) if i != 3), "x3"]))


def test_samples_of_class_folders(class_folders: Path) -> None:
    everything = folder(class_folders)
    assert (everything.classes, everything.images.y.tolist()) == (("a", "b"), [0, 0, 0, 1, 1])
    only = folder(class_folders, ["b"])
    assert (only.classes, only.images.keys) == (("b",), ("b/0.png", "b/1.png"))
    assert {only.images.class_names[i] for i in only.images.y.tolist()} == {"b"}
    assert folder(class_folders, ["b", "a"]).classes == ("b", "a")


def test_samples_of_folders_named_by_index(class_folders: Path) -> None:
    (class_folders / "a").rename(class_folders / "7")
    samples = folder(class_folders, [7])
    assert (samples.classes, samples.images.class_names, len(samples)) == (("7",), ("7",), 3)


def test_samples_of_a_tree_are_its_train_images(class_folders: Path, tmp_path: Path, picture: Make) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    class_folders.rename(root / "train")
    (root / "test" / "a").mkdir(parents=True)
    picture().save(root / "test" / "a" / "0.png")
    with pytest.warns(DataWarning, match=r"tree has splits. Samples are taken from tree, train split\.") as found:
        samples = folder(root, ["b"])
    assert found[0].filename == __file__
    assert (samples.classes, samples.images.keys) == (("b",), ("b/0.png", "b/1.png"))
    assert samples.images.origin == "tree, train split"
    (root / "plane").mkdir()  # train is a class beside it
    picture().save(root / "plane" / "0.png")
    with pytest.raises(DataError, match=r"tree holds test, train beside plane\. If these are splits"):
        folder(root)


def test_bad_sample_folders(class_folders: Path, tmp_path: Path, picture: Make) -> None:
    with pytest.raises(DataError, match=r"folder.*nowhere.*Check.*path"):
        folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"0.png is a single picture. Give the folder"):
        folder(class_folders / "a" / "0.png")
    with pytest.raises(UnknownNameError, match=r"Unknown class of set: 'aa'.*mean.*'a'"):
        folder(class_folders, ["aa"])
    with pytest.raises(DataError, match=r"folder.*2.*subfolder"):
        folder(class_folders / "a", ["a", "b"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images"):
        folder(tmp_path / "empty")
    picture().save(class_folders / "stray.png")
    with pytest.raises(DataError, match=r"holds.*both.*folders"):
        folder(class_folders)


def test_a_class_named_twice_is_refused(class_folders: Path) -> None:
    with pytest.raises(DataError, match=r"A class is named twice"):
        folder(class_folders, ["a", "a"])
