"""Images as an audit keeps them, in PNG files of one row each, and as a page shows them: wrapped and shrunk."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unhot.errors import InputError
from unhot.records.audit import PIXELS, PictureFile

Images = NDArray[np.uint8]  # (N, C, H, W); one channel is grey, three are RGB

PER_ROW = 8
SHOWN = 48  # images at most
SIDE = 64  # pixels at most of an image in the file
DISPLAYED = 52  # pixels of an image on the page
LOSSLESS_SIDE = 40  # up to this side images are stored as they are


@dataclass(frozen=True)
class Strip:
    """A picture of several images.

    Attributes:
        address: The ``data:`` address.
        width: The width on the page in pixels.
        count: The number of images in the strip.
        total: The number of images that there are.
    """

    name: str
    address: str
    width: int
    height: int
    count: int
    total: int


def to_png(images: Images) -> bytes:
    """Return a PNG file of images side by side in one row."""
    row = images.transpose(2, 0, 3, 1).reshape(images.shape[2], -1, images.shape[1])
    buffer = io.BytesIO()
    _image(row).save(buffer, "PNG")
    return buffer.getvalue()


def read_png(path: Path, described: PictureFile | None = None) -> Images | None:
    """Read images that lie side by side in one row.

    Args:
        path: A PNG file, and no link to one elsewhere; None is returned where there is none.
        described: How many images of which size it has. What is not described is read as squares, or as one image
            where it does not divide into these.

    Raises:
        InputError: It is a link, too large, no image, or not as described.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link. A report shows pictures of its own folder only; remove the link.")
    if not path.is_file():
        return None
    row = _read(path)
    high, wide = row.shape[:2]
    count = described.images if described is not None else wide // high if wide % high == 0 else 1
    if described is not None and (high, wide) != (described.height, count * described.width):
        size = f"{count:,} images of {described.height} by {described.width} pixels"
        raise InputError(f"{path} is not a row of {size}, as audit.json says. One of them was changed since.")
    return row.reshape(high, count, wide // count, -1).transpose(1, 3, 0, 2)


def strip(images: Images, name: str) -> Strip:
    """Wrap and shrink images.

    Args:
        images: At least one.
        name: What they show.
    """
    (count, _, high, wide), some = images.shape, min(len(images), SHOWN)
    scale = min(1.0, SIDE / max(wide, high)) if count > 1 else min(1.0, PER_ROW * SIDE / wide)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    tiles = [_image(i.transpose(1, 2, 0)) for i in images[:some]]
    tiles = [t if scale == 1.0 else t.resize(size, Image.Resampling.BOX) for t in tiles]
    columns = min(PER_ROW, some)
    lines, gap = -(-some // columns), max(1, size[0] // 16)
    sheet = Image.new(tiles[0].mode, (columns * (size[0] + gap) - gap, lines * (size[1] + gap) - gap), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (size[0] + gap), i // columns * (size[1] + gap)))
    zoom = DISPLAYED / size[0] if count > 1 else 1.0
    width, height = round(sheet.width * zoom), round(sheet.height * zoom)
    return Strip(name, _address(sheet, max(size) <= LOSSLESS_SIDE), width, height, some, count)


def _image(pixels: Images) -> Image.Image:
    """Return an image of pixels (H, W, C)."""
    return Image.fromarray(np.ascontiguousarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))


def _read(path: Path) -> Images:
    try:
        with Image.open(path, formats=["PNG"]) as file:
            large = file.width * file.height > PIXELS
            row = None if large else np.asarray(file.convert("L" if file.mode in ("1", "L") else "RGB"))
    except Exception as error:  # on damaged files Pillow raises errors of many kinds
        raise InputError(f"{path} is not a PNG image that can be read.") from error
    if row is None:
        raise InputError(f"{path} has more than {PIXELS:,} pixels, which no picture of an audit has. Remove it.")
    return row


def _address(image: Image.Image, lossless: bool) -> str:
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82, optimize=True)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
