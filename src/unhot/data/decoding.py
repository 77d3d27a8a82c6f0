"""From picture files to pixels: which formats and sizes are accepted, and how any mode becomes what a model takes."""

from __future__ import annotations

import io
import os
import struct
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor

from unhot.data.bands import NPY, has_channels, read_npy, read_tiff
from unhot.data.medical import is_dicom, is_heic, read_dicom, read_heic
from unhot.errors import DataError, first_line, shortened, spelled
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
HEAD_BYTES = 132  # enough to tell every format
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

Picture = Image.Image | np.ndarray  # of Pillow; or pixels of any number of channels, uint8 (H, W, C)

_one_large = threading.Lock()


def open_picture(path: Path) -> Picture:
    """Open a picture file; its pixels are decoded when they are needed.

    Raises:
        DataError: It cannot be read, is of another format, too large, or holds several pages.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise unreadable(str(path), error) from error
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path} has {size:,} bytes, more than {MAX_FILE_BYTES:,}. Make it smaller.")
    return open_bytes(content, str(path))


def open_bytes(content: bytes, name: str) -> Picture:
    """Open the content of a picture file, whose format is told by its first bytes.

    Args:
        content: The file.
        name: Name of the picture in error messages.

    Raises:
        DataError: As for :func:`open_picture`.
    """
    try:
        image = _opened(content, name)
    except DataError:
        raise
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise unreadable(name, error) from error
    check_picture(image, name)
    return image


def _opened(content: bytes, name: str) -> Picture:
    if is_heic(content):
        return read_heic(content)
    if is_dicom(content):
        return read_dicom(content, name, MAX_PIXELS)
    if content.startswith(NPY):
        return read_npy(content, name, MAX_PIXELS)
    if has_channels(content):
        return read_tiff(content, name, MAX_PIXELS)
    return Image.open(io.BytesIO(content), formats=FORMATS)


def is_picture(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a picture."""
    if is_heic(head) or is_dicom(head) or head.startswith(NPY):
        return True
    try:
        return any((accept := Image.OPEN[name][1]) is not None and bool(accept(head)) for name in FORMATS)
    except (IndexError, struct.error):  # it is shorter than any picture
        return False


def check_decodes(image: Picture, name: str) -> None:
    """Decode a picture, to see that it is not damaged.

    Raises:
        DataError: It cannot be decoded.
    """
    try:
        if isinstance(image, Image.Image):
            image.load()  # verify() does not see that a file is cut off
    except Exception as error:
        raise unreadable(name, error) from error


def has_frames(image: Picture) -> bool:
    """Return whether a picture moves; the others of an MPO file are previews of the same photo."""
    try:
        return isinstance(image, Image.Image) and image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow raises nearly anything on a damaged file, and says so when it is decoded
        return False


def check_picture(image: Picture, name: str) -> None:
    """Refuse a picture whose pixels have no defined appearance.

    Args:
        image: The picture.
        name: Name of the picture in error messages.

    Raises:
        DataError: It is too large, or has several pages or pixels of unknown range.
    """
    if not isinstance(image, Image.Image):
        return
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


def decode(image: Picture, spec: InputSpec, name: str = "A picture") -> Tensor:
    """Return the pixels of one picture, uint8 (C, H, W): upright, in the channels and the size of ``spec``.

    Transparency is ignored: the stored colours count. A model of two channels, of four or of more takes pictures that
    have as many.

    Args:
        image: The picture; it need not be decoded yet.
        spec: The input of the model.
        name: Name of the picture in error messages.

    Raises:
        DataError: It cannot be decoded, or not be brought to that size or to these channels.
    """
    check_picture(image, name)
    if spec.channels not in (1, 3) or not isinstance(image, Image.Image):
        return torch.from_numpy(np.stack([np.asarray(_sized(b, spec, name)) for b in _channels(image, spec, name)]))
    with _one_large if image.width * image.height > LARGE_PIXELS else nullcontext():
        check_decodes(image, name)
        pixels = np.array(_sized(_upright(image).convert("L" if spec.channels == 1 else "RGB"), spec, name))
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _channels(image: Picture, spec: InputSpec, name: str) -> list[Image.Image]:
    """Return each channel as a grey picture.

    Raises:
        DataError: There are more or fewer than the model takes.
    """
    if isinstance(image, Image.Image):
        check_decodes(image, name)
        found = list(_upright(image).split())
    else:
        found = [Image.fromarray(np.ascontiguousarray(image[:, :, i])) for i in range(image.shape[2])]
    if len(found) != spec.channels:
        raise DataError(
            f"{name} has {len(found)} channels, and the model takes {spec.channels}. Give pictures of {spec.channels}."
        )
    return found


def _upright(image: Image.Image) -> Image.Image:
    """Return a decoded picture with 8 bits, turned as its tags say."""
    turn, eight_bit = UPRIGHT.get(_orientation(image)), _eight_bit(image)
    return eight_bit if turn is None else eight_bit.transpose(turn)


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
    skip = "or go on without such files: skip_broken=True."
    found = DataError(f"{name} is not a readable image ({reason}). Replace or remove it, {skip}")
    spelled(found, "skip_broken=True", "--skip-broken")
    return found


def broken(problems: list[tuple[str, DataError]], count: int, origin: str) -> DataError:
    """Return the error to raise for pictures that cannot be used.

    Args:
        problems: The name of each such picture, and what is wrong with it.
        count: Number of pictures that were looked at.
        origin: Name of the place that they are from.
    """
    names, first = shortened(name for name, _ in problems), problems[0][1]
    error = DataError(f"{origin}: {len(problems)} of {count} images cannot be used: {names}. {first}")
    spelled(error, "skip_broken=True", "--skip-broken")
    return error
