"""From picture files to pixels: which formats and sizes are accepted, and how any mode becomes grey or RGB."""

from __future__ import annotations

import io
import os
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from unhot.errors import DataError, first_line
from unhot.records.model import InputSpec

# raster formats that Pillow decodes by itself; it renders others, such as EPS, by starting programs
RASTER = (
    *("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX"),
    *("PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM"),
)
Image.init()
FORMATS = tuple(name for name in RASTER if name in Image.OPEN)  # a build may lack some
MAX_PIXELS = 1 << 26  # pixels of a picture, before and after resizing; 200 MB as RGB
MAX_FILE_BYTES = 1 << 29
THREADS = min(8, os.cpu_count() or 1)  # each holds one picture at its full size
LARGE_PIXELS = 1 << 24  # larger pictures are decoded one at a time

KNOWN = frozenset({"1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "La"})
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_one_large = threading.Lock()


def open_picture(path: Path) -> Image.Image:
    """Open a picture file; its pixels are decoded when they are needed.

    Raises:
        DataError: It cannot be read, is of another format, too large, or holds several pages.
    """
    try:
        size = path.stat().st_size
        image: Image.Image | None = None
        if size <= MAX_FILE_BYTES:
            image = Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS)
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        raise unreadable(str(path), error) from error
    if image is None:
        raise DataError(f"{path} has {size:,} bytes, more than {MAX_FILE_BYTES:,}. Make it smaller.")
    check_picture(image, str(path))
    return image


def check_file(path: Path) -> int:
    """Decode a picture file once; return the number of its frames.

    Raises:
        DataError: It cannot be decoded.
    """
    image = open_picture(path)
    try:
        image.load()  # verify() does not see that a file is cut off
    except Exception as error:
        raise unreadable(str(path), error) from error
    return _frames(image, str(path)) if image.format != "MPO" else 1  # the others are previews of the same photo


def check_picture(image: Image.Image, name: str) -> None:
    """Refuse a picture whose pixels have no defined appearance.

    Args:
        image: The picture.
        name: Name of the picture in error messages.

    Raises:
        DataError: It is too large, or has several pages or pixels of unknown range.
    """
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{name} is {image.width:,} by {image.height:,} pixels, more than {MAX_PIXELS:,} in all. Make it smaller."
        )
    if image.format == "TIFF" and (pages := _frames(image, name)) > 1:
        raise DataError(f"{name} holds {pages} pages. Save the one that is meant as a file of its own.")
    if image.mode not in KNOWN and not image.mode.startswith("I;16") and not _is_deep(image):
        kind = {"I": "32-bit integer", "F": "32-bit float"}.get(image.mode, image.mode)
        raise DataError(
            f"{name} has {kind} pixels, whose range from black to white is not known. Convert it to 8 or 16 bits."
        )


def decode(image: Image.Image, spec: InputSpec, name: str = "A picture") -> Tensor:
    """Return the pixels of one picture, uint8 (C, H, W): upright, in the channels and the size of ``spec``.

    Transparency is ignored: the stored colours count.

    Args:
        image: The picture; it need not be decoded yet.
        spec: The input of the model.
        name: Name of the picture in error messages.

    Raises:
        DataError: It cannot be decoded, or not be brought to that size.
    """
    check_picture(image, name)
    with _one_large if image.width * image.height > LARGE_PIXELS else nullcontext():
        try:
            image.load()
        except Exception as error:
            raise unreadable(name, error) from error
        turn, upright = UPRIGHT.get(_orientation(image)), _eight_bit(image)
        upright = upright if turn is None else upright.transpose(turn)
        pixels = np.array(_sized(upright.convert("L" if spec.channels == 1 else "RGB"), spec, name))
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _frames(image: Image.Image, name: str) -> int:
    """Return the number of frames or pages of a picture, for which Pillow may read all of its file."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:
        raise unreadable(name, error) from error


def _is_deep(image: Image.Image) -> bool:
    """Return whether 32-bit pixels hold 16 bits: in the formats that have no more."""
    return image.mode == "I" and image.format in ("PNG", "PPM")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring pixels that Pillow would clip, or cannot convert, to 8 bits."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    return image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture; 1, upright, if the tags are damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises nearly anything on damaged tags
        return 1


def _sized(image: Image.Image, spec: InputSpec, name: str) -> Image.Image:
    """Resize a picture and crop its centre, exactly as Resize and CenterCrop of torchvision do."""
    width, height = image.size
    if isinstance(spec.resize, int):
        shorter = min(width, height)
        width, height = (int(spec.resize * side / shorter) for side in image.size)
    else:
        height, width = spec.resize or (spec.height, spec.width)
    if width * height > MAX_PIXELS:
        raise DataError(f"{name} is {image.width:,} by {image.height:,} pixels, too long to be resized. Crop it.")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[spec.interpolation.upper()])
    left, top = round((width - spec.width) / 2), round((height - spec.height) / 2)
    return image.crop((left, top, left + spec.width, top + spec.height))


def unreadable(name: str, error: Exception) -> DataError:
    """Return the error to raise for what Pillow raised on a picture."""
    known = not isinstance(error, UnidentifiedImageError)
    reason = first_line(error) or type(error).__name__ if known else "not in a format that is known"
    return DataError(f"{name} is not a readable image ({reason}). Replace or remove it.")
