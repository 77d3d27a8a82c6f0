"""DICOM and HEIC pictures, with the packages of the extra ``medical``."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from unhot.data.bands import of_array
from unhot.data.extras import needed
from unhot.errors import DataError

DICOM_AT, DICOM = 128, b"DICM"
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_dicom(content: bytes) -> bool:
    """Return whether the first bytes of a file are those of a DICOM file."""
    return content[DICOM_AT : DICOM_AT + 4] == DICOM


def is_heic(content: bytes) -> bool:
    """Return whether the first bytes of a file are those of a HEIC file; AVIF, in the same boxes, is none."""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS and b"avif" not in content[8:32]


def read_heic(content: bytes) -> Image.Image:
    """Open a HEIC picture; its pixels are decoded, and turned upright, when they are needed."""
    plugin = needed("pillow_heif", "HEIC pictures", "medical")
    found: Image.Image = plugin.HeifImageFile(io.BytesIO(content))
    return found


def read_dicom(content: bytes, name: str, most: int) -> Image.Image | np.ndarray:
    """Read a DICOM picture as it is meant to be shown: by its window, or else from its least to its greatest value.

    Args:
        content: The file.
        name: Name of the picture in error messages.
        most: Greatest number of pixels.

    Returns:
        Grey, or RGB, of 8 bits.

    Raises:
        DataError: It holds several frames or too many pixels.
    """
    if DEFLATED in content[:2_048]:
        raise DataError(f"{name} is a deflated DICOM file, of which the size is not known. Save it without deflation.")
    pydicom, shown = (needed(m, "DICOM pictures", "medical") for m in ("pydicom", "pydicom.pixels"))
    file = pydicom.dcmread(io.BytesIO(content))
    frames, kind = int(file.get("NumberOfFrames") or 1), str(file.PhotometricInterpretation)
    if frames > 1:
        raise DataError(f"{name} holds {frames} frames. Save the one that is meant as a file of its own.")
    if file.Rows * file.Columns > most:
        raise DataError(
            f"{name} is {file.Columns:,} by {file.Rows:,} pixels, more than {most:,} in all. Make it smaller."
        )
    pixels = file.pixel_array
    if kind == "PALETTE COLOR":
        pixels = shown.apply_color_lut(pixels, file)
    if pixels.ndim == 3:
        pixels = shown.convert_color_space(pixels, kind, "RGB") if kind.startswith("YBR") else pixels
        return of_array(pixels, name, channels_last=True)
    values = shown.apply_modality_lut(pixels, file).astype(np.float64)
    low, high = values.min(), values.max()
    if "WindowWidth" in file:
        with np.errstate(over="ignore"):  # of an exponential, for the ends of a window that is a sigmoid
            values = shown.apply_windowing(values, file)
            low, high = shown.apply_windowing(np.array([-np.inf, np.inf]), file)
    shades = ((values - low) / max(high - low, 1e-9) * 255).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(255 - shades if kind == "MONOCHROME1" else shades)
