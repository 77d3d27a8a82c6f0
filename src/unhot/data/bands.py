"""Pictures of any number of channels: NumPy arrays, and TIFF files that Pillow does not decode."""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image, TiffImagePlugin, TiffTags

from unhot.errors import DataError
from unhot.records.model import MOST_CHANNELS

NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*")
COLOURS = (2, 3, 5, 6, 8)  # photometric interpretations: RGB, palette, CMYK, YCbCr and LAB
MOST_PLANES = 4  # channels of the largest pictures
DEFLATE = (8, 32_946)
PACKED = (5, 32_773, 34_925, 50_000)  # LZW, PackBits, LZMA and Zstandard
TAGS = {tag.name: number for number, tag in TiffTags.TAGS_V2.items()}


def of_array(array: np.ndarray, name: str, channels_last: bool = False) -> Image.Image | np.ndarray:
    """Return the picture that an array holds.

    Args:
        array: Pixels of 8 or 16 bits, (H, W), (H, W, C) or (C, H, W).
        name: Name of the picture in error messages.
        channels_last: Whether three axes are (H, W, C); else the channels are the shorter of the first and the last.

    Returns:
        A picture of Pillow, grey or RGB; of any other number of channels uint8 (H, W, C).

    Raises:
        DataError: The shape is that of no picture, or the values are not pixels.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{name} has {array.dtype} values, whose range from black to white is not known. Save pixels of 8 or "
            "16 bits."
        )
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{name} has the shape {array.shape}. Expected pixels (H, W), (H, W, C) or (C, H, W).")
    if array.ndim == 3 and not channels_last and array.shape[0] < array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] > MOST_CHANNELS:
        raise DataError(f"{name} has {array.shape[2]} channels, more than {MOST_CHANNELS}. Save one picture in a file.")
    pixels = np.ascontiguousarray(array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8))
    pixels = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
    return Image.fromarray(pixels) if pixels.ndim == 2 or pixels.shape[2] == 3 else pixels


def read_npy(content: bytes, name: str, most: int) -> Image.Image | np.ndarray:
    """Read a picture from a file of NumPy; pickled objects are not.

    Args:
        content: The file.
        name: Name of the picture in error messages.
        most: Greatest number of pixels.

    Raises:
        DataError: It holds something else than a picture, or more pixels.
    """
    file = io.BytesIO(content)
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(sorted(shape)[-2:]) > most or math.prod(shape) > MOST_PLANES * most:
        raise DataError(f"{name} has the shape {shape}, more than {most:,} pixels. Make it smaller.")
    if math.prod(shape) * dtype.itemsize > len(content):  # NumPy would allocate it first
        raise DataError(f"{name} is shorter than its shape {shape} says. Save it again.")
    file.seek(0)
    return of_array(np.load(file, allow_pickle=False), name)


def has_channels(content: bytes) -> bool:
    """Return whether a file is a TIFF picture of channels that are no colours, of which Pillow reads none or some."""
    try:
        tags = _tags(content) if content.startswith(TIFF) else {}
        count, meaning = (_number(tags, k, 1) for k in ("SamplesPerPixel", "PhotometricInterpretation"))
    except Exception:  # Pillow raises nearly anything on a damaged file
        return False
    return count > 4 or (count > 2 and meaning not in COLOURS)


def read_tiff(content: bytes, name: str, most: int) -> Image.Image | np.ndarray:
    """Read a TIFF file of any number of channels of 8 or 16 bits, in strips or tiles, plain or compressed without loss.

    Args:
        content: The file.
        name: Name of the picture in error messages.
        most: Greatest number of pixels.

    Raises:
        DataError: It has more pixels, other values or another compression.
    """
    tags = _tags(content)
    if tags.next:
        raise DataError(f"{name} holds several pages. Save the one that is meant as a file of its own.")
    width, height, count = (_number(tags, k) for k in ("ImageWidth", "ImageLength", "SamplesPerPixel"))
    bits, kinds = tags.get(TAGS["BitsPerSample"], (1,)), tags.get(TAGS["SampleFormat"], (1,))
    if width * height > most or width * height * count > MOST_PLANES * most or count > MOST_CHANNELS:
        raise DataError(f"{name} is {width:,} by {height:,} pixels of {count} channels. Make it smaller.")
    if set(bits) not in ({8}, {16}) or set(kinds) != {1}:
        raise DataError(f"{name} has values of {max(bits)} bits in {count} channels. Save pixels of 8 or 16 bits.")
    compression = _number(tags, "Compression", 1)
    if compression not in (1, *DEFLATE, *PACKED):
        raise DataError(
            f"{name} is a TIFF file of {count} channels with a compression that is not read. Save it without."
        )
    dtype = np.dtype(f"{'<' if content[:2] == b'II' else '>'}u{bits[0] // 8}")
    planes = count if _number(tags, "PlanarConfiguration", 1) == 2 else 1
    pixels = np.empty((planes, height, width, count // planes), dtype.newbyteorder("="))
    _fill(pixels, content, tags, dtype)
    joined = pixels[0] if planes == 1 else pixels[..., 0].transpose(1, 2, 0)
    return of_array(joined, name, channels_last=True)


def _fill(pixels: np.ndarray, content: bytes, tags: Any, dtype: np.dtype[Any]) -> None:
    """Decode every strip or tile of a file into planes (P, H, W, C)."""
    planes, height, width, channels = pixels.shape
    tiled = TAGS["TileOffsets"] in tags
    across = _number(tags, "TileWidth") if tiled else width
    down = _number(tags, "TileLength") if tiled else min(_number(tags, "RowsPerStrip", height), height)
    kind = "Tile" if tiled else "Strip"
    offsets, sizes = tags[TAGS[f"{kind}Offsets"]], tags[TAGS[f"{kind}ByteCounts"]]
    corners = [(p, y, x) for p in range(planes) for y in range(0, height, down) for x in range(0, width, across)]
    for (plane, y, x), offset, size in zip(corners, offsets, sizes, strict=True):
        rows = down if tiled else min(down, height - y)
        length = rows * across * channels * dtype.itemsize
        raw = content[offset : offset + size]
        compression = _number(tags, "Compression", 1)
        if compression in DEFLATE:
            raw = zlib.decompressobj().decompress(raw, length)
        elif compression in PACKED:
            raw = _unpacked(raw, compression, length // rows, rows)
        part = np.frombuffer(raw[:length], dtype).reshape(rows, across, channels)
        if _number(tags, "Predictor", 1) == 2:
            part = np.cumsum(part, axis=1, dtype=pixels.dtype)
        pixels[plane, y : y + rows, x : x + across] = part[: height - y, : width - x]


def _unpacked(raw: bytes, compression: int, width: int, height: int) -> bytes:
    """Decompress the bytes of a strip or tile, as a grey picture of them that Pillow reads."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    of_strip = {"BitsPerSample": 8, "PhotometricInterpretation": 1, "StripOffsets": 0, "StripByteCounts": len(raw)}
    for tag, value in {"ImageWidth": width, "ImageLength": height, "Compression": compression, **of_strip}.items():
        tags[TAGS[tag]] = value
    # Pillow adds to the offset where the tags end
    file = io.BytesIO(TIFF[0] + (8).to_bytes(4, "little") + tags.tobytes(8) + raw)
    return TiffImagePlugin.TiffImageFile(file).tobytes()


def _tags(content: bytes) -> Any:
    file = io.BytesIO(content)
    found = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    file.seek(found.next)
    found.load(file)
    return found


def _number(tags: Any, name: str, usual: int | None = None) -> int:
    value = tags.get(TAGS[name], usual)
    if value is None:
        raise DataError(f"its tag {name} is missing")
    return int(value[0] if isinstance(value, tuple) else value)
