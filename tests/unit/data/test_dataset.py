from __future__ import annotations

import threading
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    random_split,
)

from unhot.data.images import LabelledImages
from unhot.data.samples import as_images
from unhot.errors import DataError, DataWarning
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops

PICTURE, TENSOR = Image.new("L", (3, 2), 9), torch.full((1, 2, 3), 0.5)
GREY = InputSpec(height=2, width=3, channels=1, mean=(0.0,), std=(1.0,))


class Items(Dataset):
    """A data set of given items."""

    def __init__(self, items: list[Any], **attributes: object) -> None:
        self.items = items
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        item = self.items[i]
        if isinstance(item, Exception):
            raise item
        return item


def labels_of(*labels: Any, image: Any = PICTURE, **attributes: object) -> LabelledImages:
    return as_images(Items([(image, label) for label in labels], **attributes))


@pytest.mark.parametrize("image", [PICTURE, TENSOR], ids=["picture", "tensor"])
def test_labels_are_those_that_the_items_give(image: Any) -> None:
    """``targets`` are those before ``target_transform``."""
    assert labels_of(2, 0, 1, image=image, targets=[0, 1, 2]).y.tolist() == [2, 0, 1]


def test_labels_and_names_of_torchvision_folders(tmp_path: Path) -> None:
    torchvision_ops.prepare()
    from torchvision.datasets import ImageFolder

    for i, name in enumerate(("a", "b", "b")):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (3, 2), 40 * i).save(tmp_path / name / f"{i}.png")
    plain = as_images(ImageFolder(tmp_path))
    assert (plain.y.tolist(), plain.class_names) == ([0, 1, 1], ("a", "b"))
    turned = as_images(ImageFolder(tmp_path, target_transform=lambda y: 1 - y))
    assert (turned.y.tolist(), turned.class_names) == ([1, 0, 0], None)  # the names are of the labels before
    tensors = as_images(ImageFolder(tmp_path, transform=lambda x: TENSOR, target_transform=lambda y: 1 - y))
    assert tensors.y.tolist() == [1, 0, 0]
    part = as_images(Subset(ImageFolder(tmp_path), [2, 0]))
    assert (part.y.tolist(), part.class_names) == ([1, 0], ("a", "b"))
    assert part.pixels(torch.arange(2), GREY)[:, 0, 0, 0].tolist() == [80, 0]

    class Relabelled(ImageFolder):
        def __getitem__(self, i: int) -> tuple[Any, int]:
            return super().__getitem__(i)[0], 1

    assert as_images(Relabelled(tmp_path)).y.tolist() == [1, 1, 1]


def test_parts_and_joins_keep_labels_and_names() -> None:
    data = Items([(PICTURE, i % 2) for i in range(6)], classes=["x", "y"])
    parts = random_split(data, [4, 2], generator=torch.Generator().manual_seed(0))
    for part in parts:
        images = as_images(part)
        assert images.y.tolist() == [i % 2 for i in part.indices]
        assert images.class_names == ("x", "y")
    joined = as_images(ConcatDataset([data, Items([(PICTURE, 1)], classes=["x", "y"])]))
    assert (joined.y.tolist(), joined.class_names) == ([0, 1, 0, 1, 0, 1, 1], ("x", "y"))
    assert as_images(ConcatDataset([data, Items([(PICTURE, 1)], classes=["y", "x"])])).class_names is None


NUMBERS: list[Any] = [
    3,
    3.0,
    np.int64(3),
    np.float32(3),
    np.array(3),
    np.array([3]),
    torch.tensor(3),
    torch.tensor([3.0]),
    torch.tensor(3.0, dtype=torch.bfloat16),
    torch.tensor([0, 0, 0, 1]),
    np.eye(4)[3],
    [0, 0, 0, 1],
]


@pytest.mark.parametrize("label", NUMBERS)
def test_a_label_is_a_number_in_any_form(label: Any) -> None:
    assert labels_of(label, 0).y.tolist() == [3, 0]
    assert labels_of(label, 0, image=TENSOR).y.tolist() == [3, 0]


@pytest.mark.parametrize(
    "label",
    [
        *(3.7, -1, torch.tensor(-1), float("nan"), float("inf"), 2**40, 10**30, None, 1 + 2j, b"3", {"a": 1}, [], ()),
        *([0.2, 0.8], [1, 1, 0], [0, 0], torch.eye(2), [[1], [2, 3]], object(), torch.tensor([1, 2])),
    ],
)
@pytest.mark.parametrize("image", [PICTURE, TENSOR], ids=["picture", "tensor"])
def test_a_label_that_is_not_one_class_is_refused_by_its_position(label: Any, image: Any) -> None:
    with pytest.raises(DataError, match=r"Items\[1\] has"):
        labels_of(0, label, image=image)


def test_text_labels_are_names() -> None:
    images = labels_of("dog", "cat", np.str_("dog"))
    assert (images.y.tolist(), images.class_names) == ([1, 0, 1], ("cat", "dog"))
    images = labels_of("dog", "cat", classes=["dog", "cow", "cat"])
    assert (images.y.tolist(), images.class_names) == ([0, 2], ("dog", "cow", "cat"))
    with pytest.raises(DataError, match=r"Items.*labels.*none"):
        labels_of("dog", "emu", classes=["dog", "cat"])
    with pytest.raises(DataError, match=r"labels.*others.*'dog'"):
        labels_of(1, "dog")
    with pytest.raises(DataError, match=r"classes.*name"):
        labels_of("a", classes=["a", "a"])


def test_a_label_without_a_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"Items.*1.*77.*2.*0"):
        labels_of(0, 77, classes=["a", "b"])
    with pytest.raises(DataError, match=r"tensors.*2.*1"):
        as_images((torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, -1])))
    for wrong in ([0.0, 1.0, 2.5], [0.0, torch.nan, 1.0]):
        with pytest.raises(DataError, match=r"labels.*whole.*0"):
            as_images((torch.zeros(3, 1, 2, 2), torch.tensor(wrong)))
    assert as_images((torch.zeros(3, 1, 2, 2), torch.tensor([0.0, 1.0, 2.0]))).y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("names", [3, "ab", [], None, {"a": 0}])
def test_classes_that_are_no_names_are_left_alone(names: object) -> None:
    assert labels_of(0, 1, classes=names).class_names is None


@pytest.mark.parametrize("wrap", [dict, UserDict])
@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "label"), ("pixel_values", "labels")])
def test_items_may_be_dicts(wrap: Callable[..., Any], image: str, label: str) -> None:
    names = SimpleNamespace(names=["cat", "dog"])
    data = Items([wrap({image: PICTURE, label: 1, "id": 5})], features={image: None, label: names})
    images = as_images(data)
    assert (images.y.tolist(), images.class_names) == ([1], ("cat", "dog"))
    assert images.pixels(torch.tensor([0]), GREY).unique().tolist() == [9]


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"img": PICTURE, "fine_label": 1}, r"has the keys img, fine_label\. Expected one of the keys label"),
        ({"image": PICTURE, "pixel_values": TENSOR, "label": 1}, r"has image and pixel_values"),
        ((PICTURE, 1, 2), r"Items\[0\] holds 3 values\. Expected two"),
        ((PICTURE,), r"Items\[0\] holds 1 values"),
        (PICTURE, r"Items\[0\] is Image\. Expected a pair of image and label"),
        (TENSOR, r"Items\[0\] is Tensor"),
        ("ab", r"Items\[0\] is str"),
        (None, r"Items\[0\] is NoneType"),
        (("cat.png", 1), r"Items: expected pictures or tensors, got str"),
        ((np.zeros((2, 2)), 0), r"got ndarray of float64 and shape \(2, 2\)"),
        ((np.zeros((3, 4, 3), np.uint8), 0), r"got ndarray of uint8 and shape \(3, 4, 3\)"),
        ((torch.zeros(2, 2), 0), r"Expected images of shape \(N, C, H, W\)"),
        ((torch.zeros(1, 2, 2, dtype=torch.int64), 0), r"Expected uint8 pixels or floating inputs"),
        ((torch.full((1, 2, 2), torch.nan), 0), r"NaN or infinite"),
    ],
)
def test_other_items_are_refused(item: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        as_images(Items([item]))


def test_arrays_are_pixels_or_inputs() -> None:
    grey, colour = np.arange(6, dtype=np.uint8).reshape(2, 3), np.arange(30, dtype=np.uint8).reshape(2, 5, 3)
    assert as_images(Items([(grey, 0)])).pixels(torch.tensor([0]), GREY).tolist() == [[grey.tolist()]]
    assert as_images(Items([(grey[:, :, None], 0)])).pixels(torch.tensor([0]), GREY).tolist() == [[grey.tolist()]]
    spec = InputSpec(height=2, width=5, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    got = as_images(Items([(colour, 0)])).pixels(torch.tensor([0]), spec)
    assert got[0].permute(1, 2, 0).tolist() == colour.tolist()
    first = as_images(Items([(np.full((3, 5, 7), 0.5, np.float32), 0)]))
    assert (first.x.shape, first.x.dtype) == ((1, 3, 5, 7), torch.float32)


@pytest.mark.parametrize(
    "other",
    [PICTURE, torch.zeros(3, 2, 3), torch.zeros(1, 2, 4), torch.zeros(1, 2, 3, dtype=torch.uint8), TENSOR.double()],
    ids=["picture", "channels", "size", "uint8", "double"],
)
def test_items_that_differ_are_refused_by_their_positions(other: Any) -> None:
    with pytest.raises(DataError, match=r"Items: item 0 is .* and item 2 is .*Make all of one kind"):
        as_images(Items([(TENSOR, 0), (TENSOR, 1), (other, 0)]))
    with pytest.raises(DataError, match=r"Items: item 0 is .* and item 1 is "):
        as_images(Items([(other, 0), (TENSOR, 1)]))


@pytest.mark.parametrize("error", [KeyError("x"), OSError("broken"), IndexError(), RuntimeError("a\nb")], ids=repr)
def test_an_item_that_cannot_be_read_is_named(error: Exception) -> None:
    for at in (0, 2):
        items: list[Any] = [(PICTURE, 0)] * 4
        items[at] = error
        with pytest.raises(DataError, match=rf"Items: item {at} cannot be read \({type(error).__name__}"):
            as_images(Items(items))


def test_an_item_that_is_damaged_later_is_named() -> None:
    data = Items([(PICTURE, 0), (PICTURE, 1)])
    images = as_images(data)
    data.items[1] = OSError("the disk is gone")
    with pytest.raises(DataError, match=r"Items: item 1 cannot be read"):
        images.pixels(torch.arange(2), GREY)
    data.items[1] = (TENSOR, 1)
    with pytest.raises(DataError, match=r"1.*picture.*Tensor"):
        images.pixels(torch.arange(2), GREY)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter([(PICTURE, 0)])


@pytest.mark.parametrize("data", [Stream(), DataLoader(Stream())])
def test_what_has_no_positions_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match=r"front to end: give list\(data\)"):
        as_images(data)


class Sampled(Sampler[int]):
    def __iter__(self) -> Any:
        return iter([0])


def test_a_data_loader_stands_for_its_data_set() -> None:
    data = TensorDataset(torch.arange(16).view(4, 1, 2, 2).float(), torch.tensor([1, 0, 1, 2]))
    for shuffle in (False, True):
        images = as_images(DataLoader(data, batch_size=3, shuffle=shuffle))
        assert (images.y.tolist(), images.origin) == ([1, 0, 1, 2], "TensorDataset")
    some = as_images(DataLoader(data, sampler=SubsetRandomSampler([3, 1])))
    assert (some.y.tolist(), some.x[:, 0, 0, 0].tolist()) == ([2, 0], [12, 4])
    with pytest.warns(
        DataWarning, match=r"sampler of the DataLoader, Sampled, is not used: the whole data set is read"
    ):
        assert len(as_images(DataLoader(data, sampler=Sampled()))) == 4
    with pytest.warns(DataWarning, match=r"collate_fn of the DataLoader is not used"):
        assert len(as_images(DataLoader(data, collate_fn=list))) == 4


def test_no_items_are_refused() -> None:
    with pytest.raises(DataError, match=r"The data set is empty"):
        as_images(Items([]))


def test_a_data_set_is_read_by_the_thread_that_asks() -> None:
    """It may hold an open file, whose position threads would share."""
    threads: set[int] = set()

    class Watched(Items):
        def __getitem__(self, i: int) -> Any:
            threads.add(threading.get_ident())
            return super().__getitem__(i)

    images = as_images(Watched([(Image.new("L", (3, 2), i % 256), 0) for i in range(300)]))
    assert images.cached(GREY).x[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]
    images.pixels(torch.arange(200), GREY)
    assert threads == {threading.get_ident()}
