from __future__ import annotations

import io
import random
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from support import class_images
from unhot.data import decoding
from unhot.data.decoding import decode, open_picture
from unhot.data.images import LabelledImages, Pictures
from unhot.errors import DataError, DataWarning
from unhot.records.model import InputSpec
from unhot.runtime import torchvision_ops

Spec = Callable[..., InputSpec]
Make = Callable[..., Image.Image]


def resizing(size: int, resize: int | tuple[int, int] | None, interpolation: str = "bilinear") -> InputSpec:
    return InputSpec.model_validate(
        {"height": size, "width": size, "channels": 3, "mean": [0.0] * 3, "std": [1.0] * 3}
        | {"resize": resize, "interpolation": interpolation}
    )


@pytest.mark.parametrize("shape", [(50, 37), (37, 50), (40, 40), (16, 90), (129, 31)])
@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(24, 24), (24, 31), (24, 25), (40, 40)])
def test_pictures_are_resized_and_cropped_as_by_torchvision(
    picture: Make, shape: tuple[int, int], interpolation: str, size: tuple[int, int]
) -> None:
    torchvision_ops.prepare()
    from torchvision import transforms

    image, (crop, resize) = picture(shape, "RGB", seed=3), size
    expected = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(crop),
            transforms.PILToTensor(),
        ]
    )(image)
    assert torch.equal(decode(image, resizing(crop, resize, interpolation)), expected)


def test_a_pair_is_an_exact_size_before_the_crop(picture: Make) -> None:
    image = picture((50, 30), "RGB")
    expected = np.asarray(image.resize((28, 26), Image.Resampling.BICUBIC))[1:25, 2:26]
    assert np.array_equal(decode(image, resizing(24, (26, 28), "bicubic")).permute(1, 2, 0).numpy(), expected)


def test_without_a_resize_a_picture_takes_the_shape_of_the_input(picture: Make) -> None:
    """What bundles mean that say nothing of resizing."""
    image = picture((50, 30), "RGB")
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(image, resizing(24, None)).permute(1, 2, 0).numpy(), expected)


def test_a_picture_of_the_right_size_is_untouched(picture: Make) -> None:
    image = picture((24, 24), "RGB")
    assert np.array_equal(decode(image, resizing(24, 24, "lanczos")).permute(1, 2, 0).numpy(), np.asarray(image))


@pytest.mark.parametrize("resize", [23, (23, 24), (24, 20)])
def test_a_crop_that_is_larger_than_the_picture_is_refused(resize: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="resized to at least 24 by 24"):
        resizing(24, resize)


def test_a_picture_that_would_become_huge_is_refused() -> None:
    with pytest.raises(DataError, match=r"picture.*1.*30,000"):
        decode(Image.new("L", (1, 30_000)), resizing(64, 64))


def saved(tmp_path: Path, image: Image.Image, name: str, **options: object) -> Path:
    (tmp_path / "a").mkdir(exist_ok=True)
    image.save(tmp_path / "a" / name, **options)
    return tmp_path / "a" / name


@pytest.mark.parametrize(("mode", "kind"), [("I", "32-bit integer"), ("F", "32-bit float")])
def test_depths_without_a_white_are_refused_by_name(tmp_path: Path, mode: str, kind: str, spec: Spec) -> None:
    values = np.linspace(0, 70_000, 16).reshape(4, 4)
    image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
    assert image.mode == mode
    file = saved(tmp_path, image, "deep.tiff")
    with pytest.raises(DataError, match=rf"{file} has {kind} pixels.*Convert it to 8 or 16 bits"):
        class_images(tmp_path).cached(spec(4))
    with pytest.raises(DataError, match=rf"A picture has {kind} pixels"):
        decode(image, spec(4))


@pytest.mark.parametrize("name", ["x.pgm", "x.png", "x.tiff"])
def test_sixteen_bits_are_scaled_in_every_format(tmp_path: Path, name: str, spec: Spec) -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    if name == "x.pgm":
        (tmp_path / "x.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    assert decode(open_picture(tmp_path / name), spec(1, 4)).tolist() == [[[0, 1, 128, 255]]]


def test_a_lab_picture_has_its_colours(tmp_path: Path, spec: Spec) -> None:
    rgb, profiles = Image.new("RGB", (2, 1), (200, 60, 20)), [ImageCms.createProfile(p) for p in ("sRGB", "LAB")]
    rgb.putpixel((1, 0), (255, 255, 255))
    file = saved(tmp_path, ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB"), "lab.tiff")
    got = decode(open_picture(file), spec(1, 2, 3))[:, 0].T.int()
    assert (got - torch.tensor([[200, 60, 20], [255, 255, 255]])).abs().max() <= 4


def test_cmyk_is_converted(tmp_path: Path, spec: Spec) -> None:
    file = saved(tmp_path, Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "c.tiff")
    assert decode(open_picture(file), spec(2, channels=3))[:, 0, 0].tolist() == [255, 0, 0]


def test_pages_are_refused_and_of_frames_the_first_is_taken(tmp_path: Path, spec: Spec) -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (10, 90, 200)]
    file = saved(tmp_path, frames[0], "pages.tiff", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"{file} holds 3 pages"):
        class_images(tmp_path).cached(spec(4))
    file.unlink()
    saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    images = class_images(tmp_path)
    with pytest.warns(DataWarning, match=r"first frame.*several.*moving\.gif"):
        assert images.pixels(torch.tensor([0]), spec(4)).unique().tolist() == [10]
    images.select(torch.tensor([0])).pixels(torch.tensor([0]), spec(4))  # said once


def test_a_file_of_another_format_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Spec
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cat.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(DataError, match=r"cat\.png is not a readable image \(not in a format"):
        class_images(tmp_path).cached(spec(4))


def huge_png(side: int) -> bytes:
    """A PNG whose header promises ``side`` by ``side`` pixels."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG")
    data = bytearray(small.getvalue())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(huge_png(9_000))
    with pytest.raises(DataError, match=r"x\.png.*9,000.*9,000.*pixels"):
        open_picture(tmp_path / "x.png")


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch, spec: Spec) -> None:
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 99)
    alive, most, lock = 0, 0, threading.Lock()

    class Watched(Image.Image):
        def load(self) -> object:
            nonlocal alive, most
            with lock:
                alive, most = alive + 1, max(most, alive + 1)
            threading.Event().wait(0.01)
            with lock:
                alive -= 1
            return super().load()

    def load(i: int) -> Image.Image:
        image = Image.new("L", (10, 10), i)
        image.__class__ = Watched
        return image

    pictures = Pictures(load, 12, threads=6)
    assert pictures.decode(torch.arange(12), spec(10))[:, 0, 0, 0].tolist() == list(range(12))
    assert most == 1


def test_a_broken_picture_is_named_when_it_is_decoded(spec: Spec) -> None:
    def load(i: int) -> Image.Image:
        buffer = io.BytesIO()
        Image.effect_noise((64, 64), 99).save(buffer, "PNG")
        return Image.open(io.BytesIO(buffer.getvalue()[: 900 if i == 2 else None]))

    images = LabelledImages(Pictures(load, 3, name="photo {}".format), torch.zeros(3).long(), None, "p", (0, 1, 2))
    with pytest.raises(DataError, match=r"photo.*2.*readable"):
        images.pixels(torch.arange(3), spec(8))
    with pytest.raises(DataError, match=r"photo.*2.*readable"):
        images.select(torch.tensor([1, 2])).digests()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of the tags
@pytest.mark.parametrize("keep", [0, 8, 12, 40])
def test_damaged_tags_do_not_matter(tmp_path: Path, spec: Spec, keep: int) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that is long enough to be stored elsewhere"
    garbage = b"Exif\x00\x00" + exif.tobytes()[6 : 6 + keep] + random.Random(0).randbytes(60)
    file = saved(tmp_path, Image.new("L", (8, 4), 77), "x.jpg", exif=garbage)
    assert decode(open_picture(file), spec(4, 8)).unique().tolist() == [77]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_orientation_counts_though_other_tags_are_damaged(tmp_path: Path, spec: Spec) -> None:
    # one directory of two entries: orientation 6, and a text whose place is outside of the file
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00" + b"\x0e\x01\x02\x00\xff\x00\x00\x00\xff\xff\xff\x7f"
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00" + entry + b"\x00\x00\x00\x00"
    stored = np.zeros((8, 16), np.uint8)
    stored[:, :8] = 240
    file = saved(tmp_path, Image.fromarray(stored), "x.jpg", exif=exif)
    got = decode(open_picture(file), spec(16, 8))[0].int()
    assert (got - torch.from_numpy(np.rot90(stored, -1).copy())).abs().max() < 20


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm", "tga"])
def test_a_damaged_file_is_decoded_or_refused(tmp_path: Path, picture: Make, suffix: str, spec: Spec) -> None:
    draw, good = random.Random(suffix), io.BytesIO()
    picture((20, 20), "RGB").save(good, Image.registered_extensions()[f".{suffix}"])
    refused = 0
    for i in range(60):
        data = bytearray(good.getvalue())
        for _ in range(draw.choice([1, 3, 20])):
            data[draw.randrange(min(len(data), draw.choice([64, len(data)])))] = draw.randrange(256)
        (tmp_path / f"{i}.{suffix}").write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        try:
            assert decode(open_picture(tmp_path / f"{i}.{suffix}"), spec(8)).shape == (1, 8, 8)
        except DataError:
            refused += 1
    assert refused > 10
