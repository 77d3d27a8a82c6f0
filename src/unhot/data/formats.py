"""The file formats of published data sets: IDX, MAT and pickled batches. Reading them runs no code of theirs."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unhot.errors import DataError, first_line
from unhot.runtime import torchvision_ops

T = TypeVar("T")

MAX_BYTES = 1 << 30  # the largest file, the train split of SVHN, has 182 MB
PLAIN = frozenset({"u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8", "b1"})  # dtypes of numbers


def read_idx(path: Path) -> np.ndarray:
    """Read a file in the format of MNIST.

    Raises:
        DataError: It is damaged, or something else.
    """
    torchvision_ops.prepare()
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    _size(path)
    found: np.ndarray = guarded(path, lambda: read_sn3_pascalvincent_tensor(str(path), strict=False).numpy())
    return found


def read_mat(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Read arrays of a MATLAB file by their names.

    Raises:
        DataError: It is damaged, or has no such arrays.
    """
    from scipy.io import loadmat

    content = io.BytesIO(read_once(path))

    def read() -> list[np.ndarray]:
        found = loadmat(content, variable_names=names)
        return [np.asarray(found[name]) for name in names]

    return guarded(path, read)


def read_pickled(content: bytes, path: Path) -> dict[str, Any]:
    """Read a pickled dict of numbers, texts, lists and arrays.

    Args:
        content: Bytes of the file.
        path: The file, for error messages.

    Raises:
        DataError: It is damaged, or holds anything else, which might be code.
    """
    found = guarded(path, lambda: _PlainUnpickler(io.BytesIO(content), encoding="latin1").load())
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, not a dict of images and labels.")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): _taken_out(v) for k, v in found.items()}


def read_once(path: Path) -> bytes:
    """Return the content of a file, so that the same bytes are checked and used.

    Raises:
        DataError: It is no file, or too large.
    """
    _size(path)
    return guarded(path, path.read_bytes)


def md5(content: bytes) -> str:
    """Return the MD5 of a file's content, which the authors of data sets publish."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def guarded(path: Path, read: Callable[[], T]) -> T:
    """Run a reader of a file; anything that it raises becomes one error that names the file.

    Raises:
        DataError: The reader failed.
    """
    try:
        return read()
    except Exception as error:  # readers raise nearly anything on damaged files
        why = first_line(error) or "no reason given"
        raise DataError(
            f"{path} is damaged, or not what its name says ({type(error).__name__}: {why}). Get it again."
        ) from error


def _size(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path} is not a file.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES:,} bytes, which no such file has.")


class _DType:
    """Stands for a dtype of numpy in a pickle."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in PLAIN:
            raise pickle.UnpicklingError(f"arrays of {code!r} are not read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order) if order in ("<", ">") else self.dtype


class _Array:
    """Stands for an array of numpy in a pickle."""

    def __init__(self, *_: object) -> None:
        self.values = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: bytes | str, dtype: _DType, shape: tuple[int, ...], order: Any) -> _Array:
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        values = np.frombuffer(raw, dtype.dtype)
        if values.size != math.prod(shape):
            raise pickle.UnpicklingError(f"an array of shape {shape} has {values.size} values")
        self.values = values.reshape(shape, order=order)
        return self


def _from_buffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    return _Array().fill(content, dtype, shape, order)


def _scalar(dtype: _DType, content: bytes | str) -> Any:
    return _Array().fill(content, dtype, (), "C").values.item()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1") if encoding == "latin1" else text.encode()


KNOWN: dict[str, Any] = {
    "numpy.dtype": _DType,
    "numpy.ndarray": _Array,
    "numpy.multiarray._reconstruct": _Array,
    "numpy.multiarray.scalar": _scalar,
    "numpy.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
}


class _PlainUnpickler(pickle._Unpickler):  # the one in C allocates whatever a file asks for
    """Makes numbers, texts, lists, dicts and stand-ins for arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        place = f"{module.replace('numpy.core', 'numpy').replace('numpy._core', 'numpy')}.{name}"
        if place not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which may be code")
        return KNOWN[place]


def _taken_out(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value
