from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from support import DEVICE
from unhot.data import images as module
from unhot.data.decoding import decode
from unhot.data.images import LabelledImages, Pictures, check_tensor, pixel_range, prepare
from unhot.errors import DataError
from unhot.records.model import InputSpec

Spec = Callable[..., InputSpec]
GREY = np.array([[0, 50, 100], [150, 200, 255]], dtype=np.uint8)
COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)


def test_grey_is_kept_exactly_and_repeated_for_a_colour_model(spec: Spec) -> None:
    assert decode(Image.fromarray(GREY), spec(2, 3)).tolist() == [GREY.tolist()]
    assert decode(Image.fromarray(GREY), spec(2, 3, 3)).tolist() == [GREY.tolist()] * 3


def test_colour_is_kept_exactly_channels_first(spec: Spec) -> None:
    assert decode(Image.fromarray(COLOUR), spec(2, channels=3)).tolist() == COLOUR.transpose(2, 0, 1).tolist()


def test_colour_becomes_grey_by_luma(spec: Spec) -> None:
    expected = (COLOUR @ np.array([0.299, 0.587, 0.114])).round()
    assert np.abs(decode(Image.fromarray(COLOUR), spec(2))[0].numpy() - expected).max() <= 1


def test_opaque_rgba_palette_and_bilevel_are_what_they_look_like(spec: Spec) -> None:
    rgba = Image.fromarray(np.dstack([COLOUR, np.full((2, 2), 255, np.uint8)]))
    assert rgba.mode == "RGBA"
    assert decode(rgba, spec(2, channels=3)).tolist() == COLOUR.transpose(2, 0, 1).tolist()
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    assert decode(palette, spec(1, 2, 3))[:, 0].T.tolist() == [[9, 8, 7], [200, 100, 0]]
    bilevel = Image.fromarray(np.array([[True, False]]))
    assert bilevel.mode == "1"
    assert decode(bilevel, spec(1, 2)).tolist() == [[[255, 0]]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped(spec: Spec) -> None:
    deep = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16))
    assert deep.mode == "I;16"
    assert decode(deep, spec(1, 4)).tolist() == [[[0, 1, 128, 255]]]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, GREY),
        (2, GREY[:, ::-1]),
        (3, GREY[::-1, ::-1]),
        (4, GREY[::-1]),
        (5, GREY.T),
        (6, np.rot90(GREY, -1)),
        (7, np.rot90(GREY, 2).T),
        (8, np.rot90(GREY)),
    ],
)
def test_a_picture_is_turned_upright(spec: Spec, orientation: int, turned: np.ndarray) -> None:
    image = Image.fromarray(GREY)
    image.getexif()[0x0112] = orientation
    assert decode(image, spec(*turned.shape)).tolist() == [turned.tolist()]


def test_a_picture_of_another_size_is_resized_smoothly(spec: Spec) -> None:
    constant = decode(Image.new("L", (7, 5), 77), spec(16, 9))
    assert constant.shape == (1, 16, 9)
    assert constant.unique().tolist() == [77]
    halved = decode(Image.fromarray(np.repeat(np.repeat(GREY, 8, 0), 8, 1)), spec(2, 3))
    assert (
        halved[0].numpy().astype(int) - GREY
    ).max() <= 30  # bilinear: an antialiased mean of 8x8 and some neighbours
    assert decode(Image.fromarray(GREY.astype(np.uint8)), spec(4, 6))[0, 0].diff().ge(0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_scaled_and_normalised_by_channel(spec: Spec, channels: int) -> None:
    s = spec(2, 3, channels)
    x = torch.arange(6 * channels, dtype=torch.uint8).view(1, channels, 2, 3) * 10
    before = x.clone()
    got = prepare(x, s)
    assert got.dtype == torch.float32
    assert torch.equal(x, before)
    for c in range(channels):
        torch.testing.assert_close(got[0, c], (x[0, c] / 255 - s.mean[c]) / s.std[c])


def test_without_a_spec_pixels_are_only_scaled() -> None:
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(prepare(x, None), torch.tensor([0.0, 0.2, 1.0]).view(1, 1, 1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floating_inputs_are_left_as_they_are(spec: Spec, dtype: torch.dtype) -> None:
    x = torch.linspace(-3, 300, 8, dtype=dtype).view(2, 1, 2, 2)
    assert prepare(x, spec(2)) is x
    assert prepare(x, None) is x


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 1, 4, 5), (1, 1, 5, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_inputs_that_do_not_fit_the_model_are_refused(spec: Spec, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(DataError) as caught:
        prepare(torch.zeros(shape, dtype=dtype), spec(4))
    assert str(caught.value) == (
        f"Expected images of shape (1, 4, 4) (channels, height, width), got {shape[1:]}. "
        "Tensors are taken as they are: resize them, or pass image files."
    )


def test_pixel_range_is_what_black_and_white_become(spec: Spec) -> None:
    black, white, between = pixel_range(spec(5, channels=3), DEVICE)
    assert black.shape == (3, 1, 1)
    torch.testing.assert_close(black.flatten(), torch.tensor([-0.5, -2.0, -3.75]))
    torch.testing.assert_close(white.flatten(), torch.tensor([1.5, 2.0, 1.25]))
    torch.testing.assert_close(between, white - black)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(3, 4, 4), r"Expected images of shape \(N, C, H, W\), got \(3, 4, 4\)\."),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), r"Expected uint8 pixels or floating inputs, got torch.int64\."),
        (torch.zeros(1, 3, 4, 4, dtype=torch.bool), "Expected uint8 pixels or floating inputs"),
        (torch.full((1, 1, 2, 2), torch.nan), "The images hold NaN or infinite values"),
        (torch.full((1, 1, 2, 2), -torch.inf), "The images hold NaN or infinite values"),
    ],
)
def test_a_tensor_that_is_not_images_is_refused(x: torch.Tensor, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        check_tensor(x)
    with pytest.raises(DataError, match=sentence):
        LabelledImages(x, torch.zeros(len(x), dtype=torch.int64), None, "x", tuple(range(len(x))))


def test_one_label_an_image(numbered: LabelledImages) -> None:
    with pytest.raises(DataError, match=r"12.*11.*labels"):
        replace(numbered, y=numbered.y[:11])


def test_select_and_where_keep_everything_together(numbered: LabelledImages) -> None:
    some = numbered.select(torch.tensor([7, 0, 7]))
    assert some.x[:, 0, 0, 0].tolist() == [7, 0, 7]
    assert (some.y.tolist(), some.keys) == ([1, 0, 1], (107, 100, 107))
    assert (some.class_names, some.origin) == (numbered.class_names, "numbers")
    last = numbered.where(numbered.y == 2)
    assert last.keys == (102, 105, 108, 111)
    assert last.x[:, 0, 0, 0].tolist() == [2, 5, 8, 11]
    assert len(numbered.where(numbered.y == 9)) == 0


def test_batches_give_every_image_once_in_order(numbered: LabelledImages, spec: Spec) -> None:
    got = list(numbered.batches(spec(2), DEVICE, size=5))
    assert [len(y) for _, y in got] == [5, 5, 2]
    assert torch.equal(torch.cat([y for _, y in got]), numbered.y)
    torch.testing.assert_close(torch.cat([x for x, _ in got]), prepare(numbered.x, spec(2)))


@pytest.mark.parametrize(("side", "sizes"), [(8, [70]), (112, [64, 6]), (224, [16] * 4 + [6]), (448, [16] * 4 + [6])])
def test_a_batch_has_as_many_images_as_one_pass_takes(side: int, sizes: list[int], spec: Spec) -> None:
    assert [len(y) for _, y in pictures(*[GREY] * 70).batches(spec(side), DEVICE)] == sizes


def pictures(*arrays: np.ndarray) -> LabelledImages:
    taken = Pictures(lambda i: Image.fromarray(arrays[i]), len(arrays))
    return LabelledImages(taken, torch.arange(len(arrays)), None, "pictures", tuple(range(len(arrays))))


def test_pictures_of_any_size_are_selected_and_decoded(spec: Spec) -> None:
    images = pictures(GREY, COLOUR, np.full((9, 4), 7, np.uint8))
    chosen = images.select(torch.tensor([2, 0, 1])).select(torch.tensor([1, 0]))
    assert chosen.keys == (0, 2)
    got = chosen.pixels(torch.tensor([0, 1, 0]), spec(2, 3))
    assert got.dtype == torch.uint8
    assert got[0].tolist() == got[2].tolist() == [GREY.tolist()]
    assert got[1].unique().tolist() == [7]


def test_pictures_need_a_model_that_says_how_it_takes_them() -> None:
    with pytest.raises(DataError, match=r"pictures.*size.*inputs"):
        pictures(GREY).inputs(torch.tensor([0]), None, DEVICE)


def test_pictures_are_held_block_by_block(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 2)
    images = LabelledImages(
        Pictures(lambda i: Image.fromarray(GREY + np.uint8(i)), 5), torch.arange(5), None, "p", tuple(range(5))
    )
    assert torch.equal(images.cached(spec(2, 3)).x, images.pixels(torch.arange(5), spec(2, 3)))
    none = images.select(torch.arange(0))
    assert images.cached(spec(2, 3)).x.dtype == torch.uint8
    assert none.cached(spec(2, 3)).x.shape == (0, 1, 2, 3)


def test_held_decodes_once_and_only_where_it_fits(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    def load(i: int) -> Image.Image:
        loads.append(i)
        return Image.fromarray(GREY + np.uint8(i))

    images = LabelledImages(Pictures(load, 3), torch.arange(3), None, "p", (0, 1, 2))
    held = images.cached(spec(2, 3))
    assert sorted(loads) == [0, 1, 2]
    assert isinstance(held.x, torch.Tensor)
    everything = torch.arange(3)
    assert torch.equal(held.pixels(everything, spec(2, 3)), images.pixels(everything, spec(2, 3)))
    assert held.cached(spec(2, 3)) is held
    monkeypatch.setattr(module, "CACHED_BYTES", 17)  # 3 pictures of 6 bytes
    assert images.cached(spec(2, 3)) is images
    monkeypatch.setattr(module, "CACHED_BYTES", 18)
    assert isinstance(images.cached(spec(2, 3)).x, torch.Tensor)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
@pytest.mark.parametrize("wanted", [(6, 5, 1), (6, 5, 3), (8, 8, 1), (8, 8, 3)])
def test_pictures_in_memory_are_decoded_as_by_pil(
    spec: Spec, shape: tuple[int, ...], wanted: tuple[int, int, int]
) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    fast, s, index = Pictures.of_array(array), spec(*wanted), torch.tensor([3, 0, 0])
    slow = torch.stack([decode(Image.fromarray(array[i]), s) for i in index.tolist()])
    assert len(fast) == 4
    assert torch.equal(fast.decode(index, s), slow)
    assert torch.equal(fast.select(torch.tensor([2, 3, 0])).decode(torch.tensor([1, 2, 2]), s), slow)


def test_the_fast_path_does_not_go_through_pil(spec: Spec) -> None:
    def refuse(i: int) -> Image.Image:
        raise AssertionError("decoded by PIL")

    fast = replace(Pictures.of_array(GREY[None]), load=refuse)
    assert fast.select(torch.tensor([0])).decode(torch.tensor([0]), spec(2, 3)).tolist() == [[GREY.tolist()]]


def test_digests_hold_one_picture_at_a_time() -> None:
    alive: list[weakref.ref[Image.Image]] = []

    def load(i: int) -> Image.Image:
        assert sum(r() is not None for r in alive) <= 1  # the one before, until its digest is handed over
        picture = Image.fromarray(GREY + np.uint8(i))
        alive.append(weakref.ref(picture))
        return picture

    images = LabelledImages(Pictures(load, 20), torch.arange(20), None, "p", tuple(range(20)))
    assert len(set(images.digests())) == 20


def test_digests_are_of_values_shape_and_dtype(numbered: LabelledImages) -> None:
    a = numbered.digests()
    assert len(set(a)) == 12
    assert a[3] == hashlib.sha256(b"uint8(1, 2, 2)" + bytes([3] * 4)).hexdigest()
    assert numbered.select(torch.tensor([3, 3])).digests() == (a[3], a[3])
    assert replace(numbered, x=numbered.x.view(12, 1, 1, 4)).digests()[3] != a[3]
    assert replace(numbered, x=numbered.x.float()).digests()[3] != a[3]
    coarse = replace(numbered, x=numbered.x.to(torch.bfloat16)).digests()
    assert len({*a, *coarse, *replace(numbered, x=numbered.x.half()).digests()}) == 36
    deep = pictures(GREY, COLOUR)
    assert deep.digests()[1] == hashlib.sha256(b"uint8(2, 2, 3)" + COLOUR.tobytes()).hexdigest()


def floats(x: torch.Tensor) -> LabelledImages:
    return LabelledImages(x, torch.zeros(len(x), dtype=torch.int64), None, "floats", tuple(range(len(x))))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floating_pixels_are_refused_where_the_normalisation_is_known(
    spec: Spec, channels: int, dtype: torch.dtype
) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, channels, 4, 4), dtype=np.uint8))
    for top, x in ((1, pixels.to(dtype) / 255), (255, pixels.to(dtype))):
        with pytest.raises(DataError, match=rf"floats: the values of the images are within 0\.\.{top}, like pixels"):
            floats(x).check_scale(spec(4, channels=channels))
    floats(pixels).check_scale(spec(4, channels=channels))
    floats(prepare(pixels, spec(4, channels=channels)).to(dtype)).check_scale(spec(4, channels=channels))
    floats(pixels / 255).check_scale(None)


def test_floats_in_0_to_1_are_inputs_of_a_model_that_takes_them() -> None:
    plain = InputSpec(height=4, width=4, channels=1, mean=(0.0,), std=(1.0,))
    x = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    floats(x).check_scale(plain)
    with pytest.raises(DataError, match=r"within 0\.\.255"):
        floats(x * 255).check_scale(plain)
    floats(x * 255).check_scale(plain.model_copy(update={"std": (1 / 255,)}))


def test_one_shade_tells_nothing_of_the_scale(spec: Spec) -> None:
    floats(torch.full((2, 1, 4, 4), 0.5)).check_scale(spec(4))
