"""Every kind of place that images are read from, as tiny real files: kind -> read as what."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unhot.data.containers import archive, listed, parquet, webdataset
from unhot.data.containers.listed import KINDS, kind_of, read_contents
from unhot.data.images import LabelledImages
from unhot.data.samples import as_images, folder
from unhot.data.source import load_source
from unhot.data.unlabelled import unlabelled
from unhot.errors import DataError, DataWarning
from unhot.records.model import InputSpec

GREY = InputSpec(height=4, width=4, channels=1, mean=(0.0,), std=(1.0,))
FIRST = torch.tensor([0])


def png(shade: int) -> bytes:
    """A grey picture of 4 by 4 pixels of one shade."""
    file = io.BytesIO()
    Image.new("L", (4, 4), shade).save(file, "PNG")
    return file.getvalue()


# two pictures of a and three of b, whose shades are their numbers
SHADES = {"a": (10, 20), "b": (30, 40, 50)}
LAST = (20, 50)  # lie deeper in class folders
ROWS = [(name, i, shade) for name, shades in SHADES.items() for i, shade in enumerate(shades)]


def tree(root: Path) -> Path:
    for name, i, shade in ROWS:
        (root / name / "deep").mkdir(parents=True, exist_ok=True)
        (root / name / ("deep" if shade in LAST else "") / f"{i}.png").write_bytes(png(shade))
    return root


def members() -> Iterator[tuple[str, bytes]]:
    for name, i, shade in ROWS:
        yield f"{name}/{i}.png", png(shade)


def make_zip(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files:
            made.writestr(name, content)
    return path


def make_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as made:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


def table(root: Path) -> object:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    items = {"image": [Image.open(io.BytesIO(png(s))) for *_, s in ROWS], "label": [n == "b" for n, *_ in ROWS]}
    return datasets.Dataset.from_dict(items, features=features)


def csv(root: Path) -> Path:
    tree(root)
    lines = [f"{n}/{'deep/' * (s in LAST)}{i}.png,{n}" for n, i, s in ROWS]
    (root / "list.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return root / "list.csv"


def spaced(root: Path) -> Path:
    (root / "list").write_text(csv(root).read_text().removeprefix("path,label\n").replace(",", " "))
    return root / "list"


def saved(root: Path) -> Path:
    table(root).save_to_disk(root / "saved")
    return root / "saved"


def parquet_file(root: Path) -> Path:
    table(root).to_parquet(root / "set.parquet", batch_size=2)
    return root / "set.parquet"


def hub(root: Path) -> Path:
    (root / "data").mkdir()
    for split, part in (("train", range(2, 5)), ("test", range(5))):
        table(root).select(part).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def pairs() -> list[tuple[str, bytes]]:
    found = enumerate((png(s), b"ab".index(n.encode())) for n, _, s in ROWS)
    return [pair for i, (x, y) in found for pair in ((f"{i:04}.png", x), (f"{i:04}.cls", b"%d" % y))]


def shards(root: Path) -> Path:
    make_tar(root / "test-0000.tar", pairs()[:4])
    make_tar(root / "test-0001.tar", pairs()[4:])
    return root


def arrays(root: Path) -> Path:
    x = np.stack([np.full((4, 4), s, np.uint8) for *_, s in ROWS])
    y = np.array([[n == "b"] for n, *_ in ROWS], np.uint8)
    np.savez_compressed(root / "mnist.npz", train_images=x[1:], train_labels=y[1:], test_images=x, test_labels=y)
    return root / "mnist.npz"


def npy(root: Path) -> Path:
    np.save(root / "images.npy", np.stack([np.full((4, 6), s, np.uint8) for *_, s in ROWS]))
    return root / "images.npy"


WAYS: list[tuple[str, Callable[[Path], Path], str, tuple[str, ...] | None]] = [
    ("class folders", tree, "folder of pictures", ("a", "b")),
    ("zip of class folders", lambda r: make_zip(r / "x.zip", [*members()]), "zip archive", ("a", "b")),
    ("zip without its ending", lambda r: make_zip(r / "x", [*members()]), "zip archive", ("a", "b")),
    ("tar of class folders", lambda r: make_tar(r / "x.tar", [*members()]), "tar archive", ("a", "b")),
    ("compressed tar", lambda r: make_tar(r / "x.tgz", [*members()], "w:gz"), "tar archive", ("a", "b")),
    ("CSV list with column names", csv, "list of pictures", ("a", "b")),
    ("text list with spaces", spaced, "list of pictures", ("a", "b")),
    ("save_to_disk of datasets", saved, "folder of save_to_disk (Hugging Face)", ("a", "b")),
    ("Parquet file", parquet_file, "Parquet file, or a folder of them", ("a", "b")),
    ("folder of the hub", hub, "Parquet file, or a folder of them", ("a", "b")),
    ("WebDataset shard", lambda r: make_tar(r / "x.tar", pairs()), "WebDataset shard, or a folder of them", ("0", "1")),
    ("folder of shards", shards, "WebDataset shard, or a folder of them", ("0", "1")),
    ("npz of MedMNIST", arrays, "npz file", ("0", "1")),
    ("npy of images", npy, "npy file of images", None),
]


@pytest.mark.filterwarnings("ignore::unhot.errors.DataWarning")  # of the splits that samples are from
@pytest.mark.parametrize(("make", "kind", "names"), [w[1:] for w in WAYS], ids=[w[0] for w in WAYS])
def test_every_kind_is_read_as_the_same_images(
    tmp_path: Path, make: Callable[[Path], Path], kind: str, names: tuple[str, ...] | None
) -> None:
    path = make(tmp_path)
    assert kind_of(path).name == kind
    if kind == "npy file of images":
        images, labels = unlabelled(path).images, [0] * 5
        assert folder(path).classes == ("images",)
    else:
        images, labels = load_source(str(path)).test_images, [0, 0, 1, 1, 1]
        assert folder(path, names[1:]).images.pixels(FIRST, GREY).unique().tolist() == [30]
    assert (images.class_names, images.y.tolist()) == (names, labels)
    index = torch.tensor([4, 0, 3, 2, 1])
    assert images.pixels(index, GREY)[:, 0, 0, 0].tolist() == [50, 10, 40, 30, 20]


def test_every_kind_is_in_the_table() -> None:
    assert {kind for _, _, kind, _ in WAYS} == {kind.name for kind in KINDS}


def test_splits_of_a_list(tmp_path: Path) -> None:
    csv(tmp_path)
    lines = [f"{split};{n};{n}/{i}.png;3" for split, n, i in (("train", "b", 0), ("val", "a", 0), ("val", "b", 1))]
    (tmp_path / "list.csv").write_text("\n".join(["split;class;file_name;size", *lines]))
    with pytest.warns(DataWarning, match=r"list.csv: the columns size are not read"):
        source = load_source(str(tmp_path / "list.csv"))
    assert (source.train_images.y.tolist(), source.test_images.y.tolist()) == ([1], [0, 1])
    assert source.train_images.class_names == source.test_images.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"list.csv is empty\. Write a path and a label a line\."),
        ("Image Index,Finding\na/0.png,a\nb/0.png,b", r"its first line, Image Index, Finding, names no picture\. Call"),
        ("a/0.png,a\na/9.png,a\nb/8.png,b", r"2 of 3 files are missing: a/9.png, b/8.png\. Paths are relative"),
        ("a/0.png,a\nb/0.png", r"line 2 has 1 columns, and the first has 2\. Correct it\."),
        ("a/0.png,a\nb/0.png,", r"no label for b/0.png\. Write one"),
        ("a/0.png,a,7\n", r"has 3 columns without names\. Write a first line such as path,label\."),
    ],
)
def test_lists_that_cannot_be_read(tmp_path: Path, text: str, sentence: str) -> None:
    csv(tmp_path).write_text(text)
    if not text:
        (tmp_path / "list.csv").write_text("\n")
    with pytest.raises(DataError, match=sentence):
        load_source(str(tmp_path / "list.csv"))


def test_a_list_of_one_column_is_of_one_class(tmp_path: Path) -> None:
    csv(tmp_path).write_text("path\nb/0.png\nb/1.png\n")
    samples = folder(tmp_path / "list.csv", ["Sandal"])
    assert (samples.classes, samples.images.pixels(torch.arange(2), GREY)[:, 0, 0, 0].tolist()) == (
        ("Sandal",),
        [30, 40],
    )
    with pytest.raises(DataError, match=r"list.csv holds no class folders.*list them with their labels"):
        load_source(str(tmp_path / "list.csv"))


def test_archives_of_one_class_and_what_macs_add(tmp_path: Path) -> None:
    files = [("sandals/0.png", png(7)), ("__MACOSX/sandals/._0.png", b"x"), ("sandals/.DS_Store", b"x")]
    with pytest.warns(DataWarning) as said:
        samples = folder(make_zip(tmp_path / "sandals.zip", files), [5])
    texts = [str(w.message) for w in said]
    assert any(
        "hidden files and files that are not pictures are left out: __MACOSX, sandals/.DS_Store." in t for t in texts
    )
    assert (samples.images.y.tolist(), samples.images.pixels(FIRST, GREY).unique().tolist()) == ([5], [7])
    with pytest.warns(DataWarning):
        assert folder(tmp_path / "sandals.zip").classes == ("sandals",)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "a\\..\\..\\x.png", "C:/x.png"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_paths_that_lead_out_of_an_archive_are_refused(
    tmp_path: Path, name: str, make: Callable[[Path, list[tuple[str, bytes]]], Path]
) -> None:
    with pytest.raises(DataError, match=r"x holds the path .*, which leads out of it"):
        read_contents(make(tmp_path / "x", [("a/0.png", png(1)), (name, png(1))]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_links_in_a_tar_file_are_left_out_and_said(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as made:
        info = tarfile.TarInfo("a/secret.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(info)
        for name, content in members():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    with pytest.warns(DataWarning, match=r"x.tar: links and devices are left out: a/secret.png\."):
        assert len(read_contents(tmp_path / "x.tar").whole) == 5


@pytest.mark.parametrize(("suffix", "make"), [("zip", make_zip), ("tar", make_tar)])
def test_a_bomb_in_an_archive_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, make: Callable[..., Path]
) -> None:
    path = make(tmp_path / f"x.{suffix}", [("a/0.png", png(1) + bytes(5_000)), ("b/0.png", png(2))])
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 2_000)
    images = read_contents(path).whole
    with pytest.raises(DataError, match=r"a/0.png has 5,\d+ bytes, more than 2,000"):
        images.pixels(FIRST, GREY)
    assert images.pixels(torch.tensor([1]), GREY).unique().tolist() == [2]


def test_a_compressed_tar_is_held_only_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tar(tmp_path / "x.tar.xz", [*members()], "w:xz")
    monkeypatch.setattr(archive, "MOST_HELD", 100)
    with pytest.raises(DataError, match=r"x.tar.xz is compressed and holds more than 100 bytes\. Unpack it"):
        read_contents(path)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", [("a/0.png", png(1)), ("b/0.png", png(2))])
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.zip is damaged at a/0.png .*Make the archive again"):
        read_contents(path).whole.pixels(FIRST, GREY)


def test_a_zip_archive_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", members())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x\.zip is damaged \(File is not a zip file\)\. Make the archive again"):
        read_contents(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_archive_that_was_cut_off_is_named(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    pairs = [(f"{i}.{e}", c) for i in range(4) for e, c in (("png", png(i) + noise), ("cls", b"3"))]
    path = make_tar(tmp_path / "x.tar", pairs, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x\.tar is damaged \(.*\)\. Make the archive again"):
        read_contents(path)


def test_a_file_of_no_known_form(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\0\1\2\3" * 50)
    with pytest.raises(DataError, match=r"x holds no images in a form that is known\. Known forms: folder"):
        read_contents(tmp_path / "x")
    (tmp_path / "x").write_bytes(png(3))
    with pytest.raises(DataError, match=r"x is a single picture\. Give the folder"):
        read_contents(tmp_path / "x")


def test_of_a_parquet_file_only_the_rows_around_an_image_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = parquet_file(tmp_path), list[int]()
    group = parquet._Rows._group
    monkeypatch.setattr(parquet._Rows, "_group", lambda self, n: (read.append(n), group(self, n))[1])
    images = load_source(str(path)).test_images
    assert read == []
    assert images.pixels(torch.tensor([4, 4]), GREY).unique().tolist() == [50]
    assert read == [2]


def test_pictures_beside_parquet_files_are_left_out_and_said(tmp_path: Path) -> None:
    hub(tmp_path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "cat.png").write_bytes(png(1))
    with pytest.warns(DataWarning, match=r"pictures beside the Parquet files are left out: cat.png\."):
        assert len(load_source(str(tmp_path)).test_images) == 5


def test_columns_that_are_no_images(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.table({"pixels": [1], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet has the columns pixels, label\. Expected one of image, img"):
        read_contents(tmp_path / "x.parquet")
    none = pyarrow.table({"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())})
    files.write_table(none, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet holds no images\. Check the file"):
        read_contents(tmp_path / "x.parquet")
    files.write_table(pyarrow.table({"image": ["a.png"], "label": [0]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet\[0\] does not hold the content of an image file"):
        read_contents(tmp_path / "x.parquet").whole.pixels(FIRST, GREY)


def test_what_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet_file(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        DataError, match=r"To read Parquet files, pyarrow is needed\. Install it: pip install 'unhot\[hf"
    ):
        read_contents(path)


def test_labels_of_shards(tmp_path: Path) -> None:
    named = [("x/0.jpg", png(1)), ("x/0.json", json.dumps({"label": "cat"}).encode()), ("x/1.png", png(2))]
    path = make_tar(tmp_path / "x.tar", [*named, ("x/1.cls", b"dog\n"), ("x/notes.txt", b"hello")])
    with pytest.warns(DataWarning, match=r"x.tar: files without a picture are left out: x/notes\."):
        images = read_contents(path).whole
    assert (images.class_names, images.y.tolist(), images.keys) == (("cat", "dog"), [0, 1], ("x.tar/x/0", "x.tar/x/1"))
    with pytest.raises(DataError, match=r"x.tar/x/1 has no label\. Add 1.cls"):
        read_contents(make_tar(path, named))
    for label, said in (([3, 5], "which is not one class"), (-1, "whole numbers from 0")):
        several = [("0.jpg", png(1)), ("0.json", json.dumps({"label": label}).encode())]
        with pytest.raises(DataError, match=rf"x.tar/0.json has the label .*{said}"):
            read_contents(make_tar(path, several))
    with pytest.raises(DataError, match=r"x.tar/x/0.json holds no label"):
        read_contents(make_tar(path, [named[0], ("x/0.json", b"[]")]))


def test_a_tar_of_folders_with_json_files_of_other_names_is_no_shard(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", [*members(), ("about.json", b"{}")])
    assert not webdataset.is_shard(path)
    with pytest.warns(DataWarning, match=r"hidden files and files that are not pictures are left out: about.json"):
        assert read_contents(path).whole.class_names == ("a", "b")


@pytest.mark.filterwarnings("ignore::unhot.errors.DataWarning")
def test_npz_by_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 2, 1])
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1], x_val=x[1:], y_val=y[1:])
    source = load_source(str(tmp_path / "keras.npz"))
    assert (source.train_images.y.tolist(), source.test_images.x.pixels.shape) == ([0, 2, 1], (1, 3, 4, 4))
    np.savez(tmp_path / "x.npz", a=x)
    with pytest.raises(DataError, match=r"x.npz holds the arrays a\. Name them train_images"):
        read_contents(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=np.array([{}]), y=np.zeros(1))
    with pytest.raises(DataError, match=r"x.npz is damaged"):
        read_contents(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=x, labels=np.eye(3)[[2, 0, 1]])
    assert read_contents(tmp_path / "x.npz").whole.y.tolist() == [2, 0, 1]
    np.savez(tmp_path / "x.npz", images=x, labels=np.array([1, 0, 2**30]))
    with pytest.raises(DataError, match=r"x.npz has the label 1073741824\. Number the classes from 0"):
        read_contents(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", images=x, labels=np.array([[1, 1], [0, 0], [0, 1]]))
    with pytest.raises(DataError, match=r"x.npz\[0\] has the label \[1, 1\], which is not one class"):
        read_contents(tmp_path / "x.npz")
    monkeypatch.setattr("unhot.data.containers.arrays.MOST_BYTES", 100)
    with pytest.raises(DataError, match=r"x.npz: images.npy, labels.npy has more than 100 bytes"):
        read_contents(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((5, 6, 7), 1), ((5, 6, 7, 3), 3), ((5, 3, 6, 7), 3), ((5, 6, 7, 1), 1), ((5, 9, 20, 20), 9)],
)
def test_arrays(shape: tuple[int, ...], channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = as_images((x, np.array([[1], [0], [1], [1], [2]])))
    assert (images.y.tolist(), images.x.pixels.shape[:2], images.origin) == ([1, 0, 1, 1, 2], (5, channels), "arrays")
    height, width = images.x.pixels.shape[2:]
    spec = InputSpec(height=2 * height, width=width, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    assert images.pixels(torch.arange(5), spec).shape == (5, *spec.shape)
    assert len(set(images.digests())) == 5


def test_arrays_that_are_inputs_or_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
    assert as_images((x, torch.tensor([1, 0]))).x.dtype == torch.float32
    with pytest.raises(DataError, match=r"arrays holds int64 of shape \(2, 4, 4\)\. Expected pixels, uint8"):
        as_images((np.zeros((2, 4, 4), np.int64), np.zeros(2)))
    with pytest.raises(DataError, match=r"which axis of the shape \(2, 8, 8, 8\) holds the channels"):
        as_images((np.zeros((2, 8, 8, 8), np.uint8), np.zeros(2)))
    with pytest.raises(DataError, match=r"arrays: 2 images and labels of shape \(3,\)"):
        as_images((x, np.zeros(3)))


def test_labels_of_hugging_face_are_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, opened = table(tmp_path), list[str]()
    real = listed.read_contents
    assert real is read_contents
    from unhot.data import hugging_face

    open_bytes = hugging_face.open_bytes
    monkeypatch.setattr(hugging_face, "open_bytes", lambda c, n: (opened.append(n), open_bytes(c, n))[1])
    images: LabelledImages = as_images(data)
    assert (images.class_names, images.y.tolist(), opened) == (("a", "b"), [0, 0, 1, 1, 1], [])
    assert images.pixels(torch.tensor([3]), GREY).unique().tolist() == [40]
    assert opened == ["Dataset[3]"]
    data.set_transform(lambda items: items | {"label": [1] * len(items["label"])})
    assert as_images(data).y.tolist() == [1] * 5
