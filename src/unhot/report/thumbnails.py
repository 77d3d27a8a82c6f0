"""Rows of small images, wrapped and shrunk, as data addresses that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unhot.errors import InputError

PER_ROW = 8
SHOWN = 48  # images at most
SIDE = 64  # pixels at most of an image in the file
DISPLAYED = 52  # pixels of an image on the page
LOSSLESS_SIDE = 40  # up to this side images are stored as they are
PIXELS = 2**26  # of a file: a thousand images of 256 by 256


@dataclass(frozen=True)
class Strip:
    """A picture of several images.

    Attributes:
        address: ``data:`` address.
        width: On the page, pixels.
        count: Images in it.
        total: Images that there are.
    """

    name: str
    address: str
    width: int
    height: int
    count: int
    total: int


def strip(path: Path, name: str, count: int) -> Strip | None:
    """Read a row of images that lie side by side.

    Args:
        path: A PNG file, and no link to one elsewhere; None is returned where there is none.
        name: What it shows.
        count: How many images the row has; taken for one image if the width does not divide by it.

    Raises:
        InputError: It is a link, too large, or not an image.
    """
    if path.is_symlink():
        raise InputError(f"{path} is a link. A report shows pictures of its own folder only; remove the link.")
    if not path.is_file():
        return None
    row = _read(path)
    count = count if count > 0 and row.width % count == 0 else 1
    wide, high, some = row.width // count, row.height, min(count, SHOWN)
    scale = min(1.0, SIDE / max(wide, high)) if count > 1 else min(1.0, PER_ROW * SIDE / row.width)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    tiles = [row.crop((i * wide, 0, (i + 1) * wide, high)) for i in range(some)]
    tiles = [t if scale == 1.0 else t.resize(size, Image.Resampling.BOX) for t in tiles]
    columns = min(PER_ROW, some)
    lines, gap = -(-some // columns), max(1, size[0] // 16)
    sheet = Image.new(row.mode, (columns * (size[0] + gap) - gap, lines * (size[1] + gap) - gap), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * (size[0] + gap), i // columns * (size[1] + gap)))
    zoom = DISPLAYED / size[0] if count > 1 else 1.0
    width, height = round(sheet.width * zoom), round(sheet.height * zoom)
    return Strip(name, _address(sheet, max(size) <= LOSSLESS_SIDE), width, height, some, count)


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=["PNG"]) as file:
            large = file.width * file.height > PIXELS
            row = None if large else file.convert("L" if file.mode in ("1", "L") else "RGB")
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
