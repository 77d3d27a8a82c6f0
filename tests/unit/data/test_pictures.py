"""Pictures that Pillow alone does not read: HEIC, DICOM, and those of more channels than three."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from support import class_images
from unhot.data import bands, decoding
from unhot.data.decoding import decode, open_bytes, open_picture
from unhot.data.source import folder_input
from unhot.errors import DataError
from unhot.records.model import InputSpec

RNG = np.random.default_rng(0)


def spec(height: int, width: int, channels: int = 1) -> InputSpec:
    mean, std = (0.5,) * channels, (0.25,) * channels
    return InputSpec(height=height, width=width, channels=channels, mean=mean, std=std)


def dicom(pixels: np.ndarray, **tags: object) -> bytes:
    """A plain DICOM file of grey pixels (H, W), or of colours (H, W, 3)."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = pydicom.Dataset()
    file.file_meta, file.Rows, file.Columns = meta, *pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(pixels.dtype.kind == "i")
    file.SamplesPerPixel, file.PhotometricInterpretation = (3, "RGB") if pixels.ndim == 3 else (1, "MONOCHROME2")
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    content = io.BytesIO()
    file.save_as(content, enforce_file_format=True)
    return content.getvalue()


def shades(content: bytes, *size: int) -> list[int]:
    return decode(open_bytes(content, "x"), spec(*size)).flatten().tolist()


def test_a_dicom_picture_is_shown_by_its_window() -> None:
    values = np.array([[-1000, 0, 50, 100, 3000]], np.int16)
    window = {"WindowCenter": "50.5", "WindowWidth": "101", "RescaleSlope": "1", "RescaleIntercept": "0"}
    assert shades(dicom(values, **window), 1, 5) == [0, 0, 128, 255, 255]
    assert shades(dicom(values, **window | {"RescaleIntercept": "50"}), 1, 5) == [0, 128, 255, 255, 255]
    assert shades(dicom(values, PhotometricInterpretation="MONOCHROME1", **window), 1, 5) == [255, 255, 127, 0, 0]


def test_a_dicom_picture_without_a_window_is_shown_from_its_least_value_to_its_greatest() -> None:
    assert shades(dicom(np.array([[100, 150, 200]], np.uint16)), 1, 3) == [0, 128, 255]
    assert shades(dicom(np.full((1, 2), 9, np.uint16)), 1, 2) == [0, 0]
    colours = RNG.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    got = decode(open_bytes(dicom(colours), "x"), spec(2, 2, 3))
    assert torch.equal(got, torch.from_numpy(colours).permute(2, 0, 1))


def test_a_dicom_file_is_known_by_its_content_and_may_have_no_ending(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "IM0001").write_bytes(dicom(np.array([[0, 9]], np.uint8)))
    images = class_images(tmp_path)
    assert images.pixels(torch.tensor([0]), spec(1, 2)).flatten().tolist() == [0, 255]
    with pytest.raises(DataError, match=r"x holds 2 frames\. Save the one that is meant"):
        open_bytes(dicom(np.zeros((4, 2), np.uint8), Rows=2, NumberOfFrames="2"), "x")
    with pytest.raises(DataError, match=r"x is not a readable image"):
        open_bytes(dicom(np.zeros((4, 2), np.uint8))[:-6], "x")


def test_a_deflated_dicom_file_may_be_of_any_size() -> None:
    plain = dicom(np.zeros((4, 2), np.uint8))
    with pytest.raises(DataError, match=r"x is a deflated DICOM file, of which the size is not known"):
        open_bytes(plain.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"), "x")


def test_a_huge_dicom_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 7)
    with pytest.raises(DataError, match=r"x is 2 by 4 pixels, more than 7 in all"):
        open_bytes(dicom(np.zeros((4, 2), np.uint8)), "x")


def test_a_heic_picture_is_read_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_heif

    stored = np.zeros((64, 32, 3), np.uint8)
    stored[:32] = 240
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of how it is shown
    made = pillow_heif.from_pillow(Image.fromarray(stored))
    made.save(tmp_path / "photo.jpg", quality=95, exif=exif.tobytes(), format="HEIF")  # a name says nothing
    assert "HEIF" not in Image.registered_extensions().values()
    image = open_picture(tmp_path / "photo.jpg")
    got = decode(image, spec(*image.size[::-1], 3))
    upright = torch.from_numpy(np.rot90(stored, -1).copy()) if got.shape[2] == 64 else torch.from_numpy(stored)
    assert got.shape[1:] == upright.shape[:2]
    assert (got.permute(1, 2, 0).int() - upright.int()).abs().float().mean() < 5
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        DataError, match=r"To read HEIC pictures, pillow_heif is needed\. Install it: pip install 'unhot"
    ):
        open_picture(tmp_path / "photo.jpg")


def packed(raw: bytes, kind: str) -> bytes:
    """Compress bytes as in TIFF files, with what Pillow writes for a grey picture of one row."""
    file = io.BytesIO()
    Image.fromarray(np.frombuffer(raw, np.uint8)[None]).save(file, "TIFF", compression=kind)
    tags = Image.open(file).tag_v2
    return file.getvalue()[tags[273][0] :][: tags[279][0]]


KINDS = {"": 1, "tiff_adobe_deflate": 8, "tiff_lzw": 5, "packbits": 32_773, "zstd": 50_000, "lzma": 34_925, "jpeg": 7}


def tiff(pixels: np.ndarray, planar: int = 1, kind: str = "", tile: int = 0, predictor: int = 1) -> bytes:
    """A TIFF file of pixels (H, W, C), two rows a strip or in square tiles."""
    height, width, channels = pixels.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    data = [pixels[..., c : c + 1] for c in range(channels)] if planar == 2 else [pixels]
    rows, columns = (tile, tile) if tile else (2, width)
    blocks = []
    for plane in data:
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                part = plane[y : y + rows, x : x + columns]
                if tile:
                    part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)))
                if predictor == 2:
                    part = np.diff(part, axis=1, prepend=part[:, :1] * 0).astype(pixels.dtype)
                raw = part.astype(pixels.dtype.newbyteorder("<")).tobytes()
                blocks.append(packed(raw, kind) if kind else raw)
    starts = tuple(sum(map(len, blocks[:i])) for i in range(len(blocks)))
    for tag, value in {
        256: width, 257: height, 258: (8 * pixels.dtype.itemsize,) * channels, 259: KINDS[kind], 262: 1,
        277: channels, 284: planar, 317: predictor, 338: (0,) * (channels - 1),
    }.items():  # fmt: skip
        tags[tag] = value
    if tile:
        tags[322], tags[323], tags[324], tags[325] = tile, tile, starts, tuple(map(len, blocks))
        tags[324] = tuple(8 + len(tags.tobytes(8)) + start for start in starts)
    else:  # Pillow itself adds to these where the tags end
        tags[278], tags[273], tags[279] = rows, starts, tuple(map(len, blocks))
    return b"II*\0" + (8).to_bytes(4, "little") + tags.tobytes(8) + b"".join(blocks)


@pytest.mark.parametrize(
    "how",
    [
        *({"kind": kind} for kind in KINDS if kind != "jpeg"),
        *({"planar": 2}, {"tile": 16}, {"predictor": 2}),
        *({"tile": 16, "planar": 2, "kind": "tiff_adobe_deflate"}, {"tile": 16, "predictor": 2, "kind": "tiff_lzw"}),
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 5), (np.uint16, 4), (np.uint8, 13)])
def test_tiff_files_of_many_channels(how: dict[str, int], dtype: type, channels: int) -> None:
    pixels = RNG.integers(0, np.iinfo(dtype).max, (7, 20, channels), dtype=dtype)
    got = decode(open_bytes(tiff(pixels, **how), "x"), spec(7, 20, channels))
    expected = pixels if dtype is np.uint8 else pixels >> 8
    assert np.array_equal(got.permute(1, 2, 0).numpy(), expected)


def test_each_channel_is_resized_as_a_grey_picture(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (12, 12, 4), dtype=np.uint8)
    got = decode(bands.of_array(pixels, "x"), spec(6, 6, 4))
    for c in range(4):
        assert torch.equal(got[c : c + 1], decode(Image.fromarray(pixels[..., c].copy()), spec(6, 6)))


def save_npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((4, 5), 1), ((4, 5, 1), 1), ((4, 5, 3), 3), ((3, 4, 5), 3), ((4, 5, 2), 2), ((8, 9, 9), 8), ((9, 9, 8), 8)],
)
def test_npy_files_in_class_folders(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    (tmp_path / "a").mkdir()
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "a" / "0.npy").write_bytes(save_npy(array))
    images = class_images(tmp_path)
    assert folder_input(images).channels == channels
    last = array.transpose(1, 2, 0) if shape[0] == channels else array.reshape(*shape[:2], -1)
    got = images.pixels(torch.tensor([0]), spec(*last.shape[:2], channels))[0]
    assert np.array_equal(got.permute(1, 2, 0).numpy(), last)
    assert len(images.digests()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: save_npy(np.zeros((4, 4))), "x has float64 values, whose range from black to white is not known"),
        (lambda: save_npy(np.zeros((4, 4, 2, 2), np.uint8)), r"x has the shape \(4, 4, 2, 2\)\. Expected pixels"),
        (lambda: save_npy(np.array([[{}]], object)), "x is not a readable image"),
        (lambda: save_npy(np.zeros((20, 20), np.uint8))[:-300], r"x is shorter than its shape \(20, 20\) says"),
        (lambda: tiff(np.zeros((8, 8, 5), np.uint8))[:20], "x is not a readable image"),
        (lambda: tiff(np.zeros((8, 8, 5), np.uint8), kind="tiff_lzw")[:-4], "x is not a readable image"),
        (lambda: tiff(np.zeros((8, 8, 5), np.uint8), kind="jpeg"), "5 channels with a compression that is not read"),
        (lambda: tiff(np.zeros((8, 8, 5), np.uint32)), "x has values of 32 bits in 5 channels"),
    ],
)
def test_what_holds_no_pixels_is_refused(content: Callable[[], bytes], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        open_bytes(content(), "x")


def test_the_size_of_an_array_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(DataError, match=r"x has the shape \(10, 10\), more than 99 pixels"):
        open_bytes(save_npy(np.zeros((10, 10), np.uint8)), "x")
    with pytest.raises(DataError, match=r"x is 10 by 10 pixels of 5 channels"):
        open_bytes(tiff(np.zeros((10, 10, 5), np.uint8)), "x")


def test_other_channels_than_the_model_takes_are_refused() -> None:
    five = bands.of_array(np.zeros((8, 8, 5), np.uint8), "x")
    for channels in (1, 3, 4):
        with pytest.raises(DataError, match=rf"x has 5 channels, and the model takes {channels}\."):
            decode(five, spec(4, 4, channels), "x")
    with pytest.raises(DataError, match=r"x has 3 channels, and the model takes 4\."):
        decode(Image.new("RGB", (4, 4)), spec(4, 4, 4), "x")
    four = decode(Image.new("RGBA", (4, 4), (1, 2, 3, 4)), spec(4, 4, 4))
    assert four[:, 0, 0].tolist() == [1, 2, 3, 4]
