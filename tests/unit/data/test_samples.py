from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from unhot.data.images import LabelledImages
from unhot.data.samples import as_images, class_position, draw
from unhot.errors import DataError, DataWarning, InputError, OptionError, UnknownNameError
from unhot.records.model import InputSpec


def labelled(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(len(y), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), y


@given(
    counts=st.lists(st.integers(0, 8), min_size=2, max_size=5),
    shots=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_draw_takes_different_images_of_the_class(
    counts: list[int], shots: int, seed: int, data: st.DataObject
) -> None:
    labels = data.draw(st.permutations([c for c, n in enumerate(counts) for _ in range(n)]))
    wanted = [c for c, n in enumerate(counts) if n >= shots][::-1]
    images = labelled(torch.tensor(labels, dtype=torch.int64))
    for c in set(labels) - set(wanted):
        with pytest.raises(DataError, match=rf"asked for {shots} images of class {c}, there are {counts[c]}\."):
            draw(images, [c], shots, seed)
    if not wanted:
        return
    samples = draw(images, wanted, shots, seed)
    assert samples.images.y.tolist() == [c for c in wanted for _ in range(shots)]
    assert len(set(samples.images.keys)) == len(samples) == shots * len(wanted)
    assert [labels[k] for k in samples.images.keys] == samples.images.y.tolist()
    assert samples.images.x[:, 0, 0, 0].tolist() == list(samples.images.keys)
    assert draw(images, wanted, shots, seed).images.keys == samples.images.keys


def test_draw_can_take_every_image_of_a_class() -> None:
    for seed in range(5):
        assert draw(labelled(torch.arange(30) % 3), [1], 10, seed).images.keys == tuple(range(1, 30, 3))


def test_draw_depends_on_its_seed_and_on_nothing_else() -> None:
    data = labelled(torch.arange(300) % 3)
    first = draw(data, [1], 16, seed=4).images.keys
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert draw(data, [1], 16, seed=4).images.keys == first
        assert torch.initial_seed() == 99
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(99)))
    assert len({draw(data, [1], 16, seed=s).images.keys for s in range(8)}) == 8
    assert draw(data, [2, 1], 16, seed=4).images.keys[16:] == first  # other classes do not matter
    assert draw(data, [1], 16, seed=0).images.keys == draw(data, [1]).images.keys


def test_draw_gives_each_class_its_own_stream() -> None:
    data = labelled(torch.arange(300) % 3)  # of every class the same number of images
    places = {c: tuple(k // 3 for k in draw(data, [c], 16).images.keys) for c in range(3)}
    assert len(set(places.values())) == 3
    together = draw(data, [0, 1, 2], 16).images.keys
    assert together == tuple(k for c in range(3) for k in draw(data, [c], 16).images.keys)
    swapped = labelled(torch.tensor([0, 2, 1])[data[1]])
    assert draw(swapped, [0], 16).images.keys == draw(data, [0], 16).images.keys  # whatever the others are


def test_draw_is_uniform() -> None:
    data = labelled(torch.zeros(10, dtype=torch.int64))
    taken = np.bincount([k for s in range(400) for k in draw(data, [0], 3, seed=s).images.keys], minlength=10)
    assert taken.sum() == 1200
    assert taken.min() > 80  # 120 expected, standard deviation 9
    assert taken.max() < 160


def test_draw_by_name_and_by_index(numbered: LabelledImages) -> None:
    by_name, by_index, by_text = (draw(numbered, [c], 2, seed=3) for c in ("y", 1, "1"))
    assert by_name.images.keys == by_index.images.keys == by_text.images.keys
    assert by_name.classes == by_index.classes == ("y",)  # an index of the data may be another one in the model
    assert draw(replace(numbered, class_names=None), [1], 2).classes == (1,)
    assert by_name.images.y.tolist() == [1, 1]


def test_bad_requests(numbered: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"numbers.*5.*'y'.*4"):
        draw(numbered, ["y"], 5)
    for shots in (0, -1, 2.5, "3"):
        with pytest.raises(
            DataError, match=f"Asked for {shots!r} images a class. Ask for a whole number of at least 1."
        ):
            draw(numbered, ["y"], shots)
    for one in (1, "y", 1.0):
        with pytest.raises(DataError, match=r"list.*classes.*Write"):
            draw(numbered, one, 1)  # type: ignore[arg-type]
    assert draw(numbered, torch.tensor([1]), 1).classes == ("y",)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"seed.*whole.*None"):
        draw(numbered, ["y"], 1, seed=None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"A class is named twice: y, y. Name each class once."):
        draw(numbered, ["y", "y"], 1)
    with pytest.raises(DataError, match=r"No class to forget is named."):
        draw(numbered, [], 1)
    with pytest.raises(UnknownNameError, match=r"Unknown.*'yy'.*'y'"):
        draw(numbered, ["yy"], 1)


def test_a_class_named_by_name_and_by_index_is_named_twice(numbered: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"A class is named twice"):
        draw(numbered, ["y", 1], 1)


def test_class_position(numbered: LabelledImages) -> None:
    assert [class_position(numbered, c) for c in ("x", "z", 0, 2, "2")] == [0, 2, 0, 2, 2]
    for wrong in (3, "3", -1, "-1", "w", ""):
        with pytest.raises(UnknownNameError, match=r"Unknown class"):
            class_position(numbered, wrong)
    unnamed = replace(numbered, class_names=None)
    assert class_position(unnamed, 2) == 2
    with pytest.raises(UnknownNameError, match=r"Unknown.*'3'.*0.*1.*2"):
        class_position(unnamed, 3)
    digits = replace(numbered, class_names=("5", "6", "7"))
    assert class_position(digits, "6") == 1


def test_a_number_is_a_name_where_all_names_are_numbers(numbered: LabelledImages) -> None:
    # torchvision's ImageFolder sorts class folders 0 to 10 as 0, 1, 10, 2, ...: class 2 is the one that is called so
    sorted_as_text = replace(numbered, class_names=("0", "10", "2"))
    assert class_position(sorted_as_text, 10) == class_position(sorted_as_text, "10") == 1
    with pytest.warns(DataWarning, match=r"number.*1.*'2'"):
        assert class_position(replace(numbered, class_names=("0", "2", "1")), 1) == 2


def test_draw_of_two_classes_with_one_name_is_by_index(numbered: LabelledImages) -> None:
    cranes = replace(numbered, class_names=("crane", "heron", "crane"))
    with pytest.raises(InputError, match=r"2.*'crane'.*index.*0.*2"):
        draw(cranes, ["crane"], 2)
    samples = draw(cranes, [2], 2)
    assert (samples.classes, samples.images.y.tolist()) == ((2,), [2, 2])


def test_a_superscript_is_no_index(numbered: LabelledImages) -> None:
    with pytest.raises(UnknownNameError):
        class_position(numbered, "²")


def test_tensors() -> None:
    images = as_images((torch.zeros(3, 1, 2, 2, requires_grad=True), torch.tensor([2, 0, 1], dtype=torch.int32)))
    assert not images.x.requires_grad
    assert (images.y.dtype, images.y.tolist()) == (torch.int64, [2, 0, 1])
    assert (images.class_names, images.origin, images.keys) == (None, "tensors", (0, 1, 2))
    with pytest.raises(DataError, match=r"tensors.*3.*2"):
        as_images((torch.zeros(3, 1, 2, 2), torch.zeros(2)))


def test_one_hot_labels_are_refused() -> None:
    with pytest.raises(DataError):
        as_images((torch.zeros(3, 1, 2, 2), torch.eye(3)))


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError):
        draw((torch.zeros(0, 1, 2, 2), torch.zeros(0)), [0], 1)


def test_images_are_taken_as_they_are(numbered: LabelledImages) -> None:
    assert as_images(numbered) is numbered


class Shapes(Dataset):
    """As of torchvision: pictures and labels."""

    def __init__(self, classes: list[str] | None = None, targets: object = None) -> None:
        if classes:
            self.classes = classes
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        if not 0 <= i < 4:
            raise IndexError(i)
        return Image.new("L", (3, 2), 10 * i), i % 2


@pytest.mark.parametrize("targets", [None, [0, 1, 0, 1], torch.tensor([0, 1, 0, 1]), np.array([0, 1, 0, 1])])
def test_a_dataset_of_pictures(targets: object) -> None:
    images = as_images(Shapes(["disc", "ring"], targets))
    assert (images.class_names, images.origin) == (("disc", "ring"), "Shapes")
    assert (images.y.dtype, images.y.tolist()) == (torch.int64, [0, 1, 0, 1])
    spec = InputSpec(height=2, width=3, channels=1, mean=(0.0,), std=(1.0,))
    assert images.pixels(torch.arange(4), spec)[:, 0, 1, 2].tolist() == [0, 10, 20, 30]
    samples = draw(Shapes(["disc", "ring"], targets), ["ring"], shots=2)
    assert samples.images.keys == (1, 3)
    assert samples.images.pixels(torch.arange(2), spec)[:, 0, 0, 0].tolist() == [10, 30]


def test_a_part_of_a_dataset_has_the_names_of_the_whole() -> None:
    images = as_images(Subset(Shapes(["disc", "ring"]), [3, 2]))
    assert (images.class_names, images.y.tolist(), images.origin) == (("disc", "ring"), [1, 0], "Subset")


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_dataset_of_tensors(dtype: torch.dtype) -> None:
    x, y = torch.arange(12).view(3, 1, 2, 2).to(dtype), torch.tensor([1, 0, 1])
    images = as_images(TensorDataset(x, y))
    assert (images.x.dtype, images.y.tolist(), images.class_names) == (dtype, [1, 0, 1], None)
    assert torch.equal(images.x, x)


def test_what_is_not_images_is_refused() -> None:
    for wrong in (None, 3, "path"):
        with pytest.raises(DataError, match=r"xpected"):
            as_images(wrong)
    with pytest.raises(DataError, match=r"The data set is empty."):
        as_images(Subset(Shapes(), []))
    with pytest.raises(DataError, match=r"pictures.*tensors.*ndarray"):
        as_images([(np.zeros((2, 2)), 0)])


def test_a_dataset_of_tensors_of_several_sizes_is_refused() -> None:
    with pytest.raises(DataError):
        as_images([(torch.zeros(1, 2, 2), 0), (torch.zeros(1, 3, 3), 1)])


@pytest.mark.parametrize("wrong", [torch.zeros(3, 1, 2, 2), (torch.zeros(1, 1, 2, 2), [0])], ids=["x", "list"])
def test_tensors_without_labels_as_tensor_are_refused(wrong: object) -> None:
    with pytest.raises(DataError, match=r"Expected \(x, y\) tensors"):
        as_images(wrong)
