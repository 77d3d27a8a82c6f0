"""The files of published data sets: small ones of their formats, whole, damaged and hostile."""

from __future__ import annotations

import pickle
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from unhot.data import formats
from unhot.data.named import load_named
from unhot.errors import DataError, DataWarning

DRAWN = np.random.default_rng(5)
COUNT = 6
GREY = DRAWN.integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
COLOUR = DRAWN.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
LABELS = [3, 0, 9, 1, 1, 5]


def idx(root: Path, images: np.ndarray = GREY, labels: list[int] = LABELS) -> list[Path]:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for split in ("train", "t10k"):
        head = struct.pack(">4I", 0x803, *images.shape)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(labels)) + bytes(labels))
    return [raw / "t10k-images-idx3-ubyte", raw / "t10k-labels-idx1-ubyte"]


def mat(root: Path, images: np.ndarray = COLOUR, labels: Any = LABELS) -> list[Path]:
    y = np.array([[10 if v == 0 else v] for v in labels])
    for split in ("train", "test"):
        savemat(root / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": y}, do_compression=True)
    return [root / "test_32x32.mat"]


def batches(root: Path, images: Any = None, labels: Any = LABELS, protocol: int = 2) -> list[Path]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(exist_ok=True)
    data = COLOUR.transpose(0, 3, 1, 2).reshape(COUNT, -1) if images is None else images
    for file in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / file).write_bytes(pickle.dumps({"data": data, "labels": labels, "filenames": ["x.png"]}, protocol))
    names = [f"class {i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol))
    return [folder / "test_batch", folder / "batches.meta"]


SETS: dict[str, Callable[..., list[Path]]] = {"mnist": idx, "svhn": mat, "cifar10": batches}


def read(name: str, root: Path, train: bool = False) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return load_named(name, train, root)


@pytest.mark.parametrize("name", SETS)
def test_whole_files_are_read(name: str, tmp_path: Path) -> None:
    SETS[name](tmp_path)
    got = read(name, tmp_path)
    assert got.y.tolist() == LABELS
    expected = GREY[:, None] if name == "mnist" else COLOUR.transpose(0, 3, 1, 2)
    assert np.array_equal(got.x.pixels.numpy(), expected)
    assert len(read(name, tmp_path, train=True)) == (COUNT * 5 if name == "cifar10" else COUNT)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "labels", [LABELS, np.array(LABELS), [np.int64(v) for v in LABELS]], ids=["list", "array", "scalars"]
)
def test_batches_that_somebody_packed_again_are_read_with_a_note(tmp_path: Path, protocol: int, labels: Any) -> None:
    fortran = np.asfortranarray(COLOUR.transpose(0, 3, 1, 2).reshape(COUNT, -1))
    for images in (None, fortran):
        batches(tmp_path, images, labels, protocol)
        with pytest.warns(DataWarning, match=r"cifar10.*test_batch.*batches\.meta.*differ.*published"):
            got = load_named("cifar10", False, tmp_path)
        assert got.y.tolist() == LABELS
        assert np.array_equal(got.x.pixels.numpy(), COLOUR.transpose(0, 3, 1, 2))
        assert got.class_names == tuple(f"class {i}" for i in range(10))


class Code:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("which", [0, 1])
def test_a_foreign_pickle_runs_no_code(tmp_path: Path, protocol: int, which: int) -> None:
    file = batches(tmp_path)[which]
    file.write_bytes(pickle.dumps({"data": Code(tmp_path / "ran"), "label_names": Code(tmp_path / "ran")}, protocol))
    with pytest.raises(DataError, match=rf"{file.name} is damaged, or not what its name says .*may be code"):
        read("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "payload", [b"cposix\nsystem\n(S'true'\ntR.", b"cnumpy\nload\n(S'/x'\ntR.", b"cbuiltins\neval\n(S'1'\ntR."]
)
def test_what_a_pickle_may_ask_for_is_a_fixed_list(payload: bytes) -> None:
    with pytest.raises(DataError, match="which may be code"):
        formats.read_pickled(payload, Path("batch"))


@pytest.mark.parametrize("payload", [b"r\xff\xff\xff\x7f.", b"\x80\x02]r\xff\xff\xff\x7f.", pickle.dumps([1])])
def test_a_pickle_that_asks_for_memory_or_holds_something_else_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="batch"):
        formats.read_pickled(payload, Path("batch"))


def test_what_is_checked_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is swapped after it was opened once."""
    file, _ = batches(tmp_path)
    read_bytes, reads = Path.read_bytes, []

    def swapped(self: Path) -> bytes:
        reads.append(self.name)
        content = read_bytes(self)
        if self == file:
            file.write_bytes(pickle.dumps(Code(tmp_path / "ran")))
        return content

    monkeypatch.setattr(Path, "read_bytes", swapped)
    assert read("cifar10", tmp_path).y.tolist() == LABELS
    assert sorted(reads) == ["batches.meta", "test_batch"]
    assert not (tmp_path / "ran").exists()


BAD = [
    ("mnist", {"labels": [3, 0, 10, 1, 1, 5]}, r"labels from 0 to 10 for 10 classes"),
    ("mnist", {"labels": [1, 2]}, r"labels of shape \(2,\) for 6 images"),
    ("mnist", {"images": GREY[:0], "labels": []}, r"images-idx3-ubyte is damaged"),
    ("svhn", {"labels": [3, 0, 77, 1, 1, 5]}, r"labels from 0 to 77"),
    ("svhn", {"labels": [3, 0, float("nan"), 1, 1, 5]}, r"does not hold the images and labels of SVHN"),
    ("svhn", {"images": COLOUR[:3]}, r"does not hold the images and labels"),
    ("cifar10", {"labels": [3, 0, 10, 1, 1, 5]}, r"labels from 0 to 10 for 10 classes"),
    ("cifar10", {"labels": [3, 0, -1, 1, 1, 5]}, r"labels from -1"),
    ("cifar10", {"labels": [3, 0, 2.5, 1, 1, 5]}, r"float64 labels"),
    ("cifar10", {"labels": [3, 0, None, 1, 1, 5]}, r"object labels"),
    ("cifar10", {"labels": [3]}, r"labels of shape \(1,\)"),
    ("cifar10", {"labels": [[1], [2, 3]]}, r"test_batch is damaged"),
    ("cifar10", {"images": np.zeros((6, 99), np.uint8)}, r"test_batch does not hold images of 32 by 32"),
    ("cifar10", {"images": np.zeros((6, 3072), np.float64)}, r"holds float64"),
    ("cifar10", {"images": [1, 2]}, r"does not hold images"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BAD)
def test_files_with_impossible_content_are_refused(
    name: str, content: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    SETS[name](tmp_path, **content)
    with pytest.raises(DataError, match=sentence):
        read(name, tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_missing_files_and_other_things_in_their_place(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in SETS[name](tmp_path):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(DataError, match=f"The data set '{name}' is not in {tmp_path}"):
            read(name, tmp_path)
        file.mkdir()
        with pytest.raises(DataError, match=f"{file} is not a file"):
            read(name, tmp_path)
        file.rmdir()
        file.write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(formats, "MAX_BYTES", len(content) - 1)
            with pytest.raises(DataError, match="has more than"):
                read(name, tmp_path)


def test_a_download_that_fails_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", refuse)
    with pytest.raises(DataError, match=r"'cifar10'.*downloaded.*route.*host"):
        load_named("cifar10", True, tmp_path, download=True)


@pytest.mark.parametrize("name", SETS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    chance, refused = random.Random(name), 0
    files = SETS[name](tmp_path)
    whole = {file: file.read_bytes() for file in files}
    for _ in range(150):
        file = chance.choice(files)
        data = bytearray(whole[file])
        for _ in range(chance.choice([1, 2, 30])):
            data[chance.randrange(min(len(data), chance.choice([32, 300, len(data)])))] = chance.randrange(256)
        file.write_bytes(data[: chance.choice([len(data), len(data), chance.randrange(len(data))])])
        try:
            read(name, tmp_path)
        except DataError as error:
            refused += str(tmp_path) in str(error)
        file.write_bytes(whole[file])
    assert refused > 40
