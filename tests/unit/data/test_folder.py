from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unhot.data.folder import image_files, load_folder, splits_of
from unhot.data.samples import folder
from unhot.errors import DataError, DataWarning, UnknownNameError
from unhot.records.model import InputSpec

Make = Callable[..., Image.Image]


def test_class_folders_by_name(class_folders: Path) -> None:
    images = load_folder(class_folders)
    assert images.class_names == ("a", "b")
    assert images.y.tolist() == [0, 0, 0, 1, 1]
    assert images.keys == ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png")
    assert images.origin == "set"


def test_pixels_are_those_of_the_files(class_folders: Path, spec: Callable[..., InputSpec]) -> None:
    images = load_folder(class_folders)
    got = images.pixels(torch.tensor([4, 1]), spec(6))
    for row, key in zip(got, ("b/1.png", "a/1.png"), strict=True):
        assert np.array_equal(row[0].numpy(), np.asarray(Image.open(class_folders / key).copy()))


def test_hidden_files_and_other_files_are_ignored(class_folders: Path, picture: Make) -> None:
    (class_folders / ".git").mkdir()
    (class_folders / "a" / "notes.txt").write_text("no image")
    (class_folders / "a" / ".hidden.png").write_bytes(b"no image")
    (class_folders / "a" / ".DS_Store").write_bytes(b"no image")
    picture().save(class_folders / "a" / "LOUD.PNG")
    assert load_folder(class_folders).keys[:4] == ("a/0.png", "a/1.png", "a/2.png", "a/LOUD.PNG")


def test_a_folder_named_like_an_image_is_no_image(class_folders: Path) -> None:
    (class_folders / "a" / "old.png").mkdir()
    assert [f.name for f in image_files(class_folders / "a")] == ["0.png", "1.png", "2.png"]


def test_train_and_test_trees(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    assert splits_of(root) == ()
    class_folders.rename(root / "test")
    assert splits_of(root) == ("test",)
    (root / "train").mkdir()
    assert splits_of(root) == ("train", "test")
    test = load_folder(root, "test")
    assert (len(test), test.origin) == (5, f"{root.name}, test split")
    with pytest.raises(DataError, match=r"train.*folders.*folder"):
        load_folder(root, "train")
    with pytest.raises(DataError, match=r"folder.*nowhere.*Check.*path"):
        load_folder(tmp_path / "nowhere", "train")


def test_empty_class_folders_are_named_all_at_once(class_folders: Path) -> None:
    for name in ("c", "d"):
        (class_folders / name).mkdir()
    (class_folders / "d" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"c.*d.*remove"):
        load_folder(class_folders)


def test_a_folder_of_class_folders_is_not_to_be_removed(class_folders: Path, tmp_path: Path) -> None:
    root = tmp_path / "trees"
    root.mkdir()
    class_folders.rename(root / "all")
    with pytest.raises(DataError, match=r"trees: all holds folders and no images\. Give a folder in which") as error:
        load_folder(root)
    assert "remove" not in str(error.value)


def test_files_that_are_no_images_are_named_all_at_once(class_folders: Path) -> None:
    (class_folders / "a" / "empty.png").touch()
    (class_folders / "b" / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"2.*7.*empty\.png.*b.*text\.jpg"):
        load_folder(class_folders)


def truncated(picture: Make, folder: Path, suffix: str) -> str:
    file = folder / f"cut.{suffix}"
    picture((64, 64), "RGB").save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    return file.name


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_truncated_files_are_found_when_the_folder_is_read(class_folders: Path, picture: Make, suffix: str) -> None:
    truncated(picture, class_folders / "a", suffix)
    truncated(picture, class_folders / "b", suffix)
    with pytest.raises(DataError, match=f"2 of 7 files are not readable images: a/cut.{suffix}, b/cut.{suffix}."):
        load_folder(class_folders)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "tiff"])
def test_truncated_files_of_every_format_are_named(class_folders: Path, picture: Make, suffix: str) -> None:
    truncated(picture, class_folders / "a", suffix)
    truncated(picture, class_folders / "b", suffix)
    with pytest.raises(DataError, match=f"2 of 7 files are not readable images: a/cut.{suffix}, b/cut.{suffix}."):
        load_folder(class_folders)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "tiff"])
def test_a_truncated_file_is_named_at_the_latest_when_it_is_decoded(
    class_folders: Path, picture: Make, suffix: str, spec: Callable[..., InputSpec]
) -> None:
    truncated(picture, class_folders / "a", suffix)
    with pytest.raises(DataError, match=f"a/cut.{suffix}"):
        load_folder(class_folders).cached(spec(6))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])  # Pillow 13 itself misreads turned TIFF files
def test_a_turned_file_is_upright(tmp_path: Path, suffix: str, spec: Callable[..., InputSpec]) -> None:
    shown = np.zeros((16, 32), np.uint8)
    shown[:, :16] = 240
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of how it is shown
    (tmp_path / "a").mkdir()
    Image.fromarray(np.rot90(shown).copy()).save(tmp_path / "a" / f"x.{suffix}", exif=exif)
    got = load_folder(tmp_path).pixels(torch.tensor([0]), spec(16, 32))[0, 0].int()
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
        got = load_folder(tmp_path).cached(spec(8, 12, channels)).x
        assert got.shape == (3, channels, 8, 12)
        assert got[2].flatten(1).unique(dim=1).shape[1] == 1  # the picture of one pixel


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path, spec: Callable[..., InputSpec]) -> None:
    (tmp_path / "a").mkdir()
    image = Image.fromarray(np.array([[0, 90], [180, 250]], np.uint8)).convert("P")
    image.save(tmp_path / "a" / "x.png", transparency=bytes([0, 255]))
    got = load_folder(tmp_path).pixels(torch.tensor([0]), spec(2))
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
    assert load_folder(tmp_path).class_names == tuple(str(i) for i in range(12))
    (tmp_path / "3").rename(tmp_path / "x3")
    assert load_folder(tmp_path).class_names == tuple(sorted([*(str(i) for i in range(12) if i != 3), "x3"]))


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
    with pytest.warns(DataWarning, match=rf"{root} has splits. Samples are taken from {root / 'train'}\.") as found:
        samples = folder(root, ["b"])
    assert found[0].filename == __file__
    assert (samples.classes, samples.images.keys) == (("b",), ("b/0.png", "b/1.png"))
    assert samples.images.origin == "tree, train split"
    (root / "plane").mkdir()  # train is a class beside it
    picture().save(root / "plane" / "0.png")
    with pytest.raises(DataError, match="test, train holds folders"):
        folder(root)


def test_bad_sample_folders(class_folders: Path, tmp_path: Path, picture: Make) -> None:
    with pytest.raises(DataError, match=r"folder.*nowhere.*Check.*path"):
        folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"folder.*0.*Check.*path"):
        folder(class_folders / "a" / "0.png")
    with pytest.raises(UnknownNameError, match=r"Unknown.*class.*folder.*'aa'.*mean.*'a'"):
        folder(class_folders, ["aa"])
    with pytest.raises(DataError, match=r"folder.*2.*subfolder"):
        folder(class_folders / "a", ["a", "b"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.png").touch()
    with pytest.raises(DataError, match=r"empty.*holds.*forget"):
        folder(tmp_path / "empty")
    picture().save(class_folders / "stray.png")
    with pytest.raises(DataError, match=r"holds.*both.*folders"):
        folder(class_folders)


def test_a_class_named_twice_is_refused(class_folders: Path) -> None:
    with pytest.raises(DataError, match=r"A class is named twice"):
        folder(class_folders, ["a", "a"])
