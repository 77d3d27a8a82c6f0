"""The files of a bundle as they are on disk, read without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from unhot.errors import ModelError
from unhot.files import sha256
from unhot.records.model import BundleInfo

WEIGHTS, INFO, GRAPH, RUN = "model.safetensors", "bundle.json", "graph.json", "record.json"
FILES = (WEIGHTS, INFO, GRAPH, RUN)  # of a bundle; the last two need not be there
LENGTH = 8  # bytes at the start of a safetensors file that say how long its header is

# the names that torch gives the number types of safetensors files, and the types of their single values in numpy
TORCH = {
    "F64": ("float64", np.float64),
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
    "BF16": ("bfloat16", None),
    "I64": ("int64", np.int64),
    "I32": ("int32", np.int32),
    "I16": ("int16", np.int16),
    "I8": ("int8", np.int8),
    "U8": ("uint8", np.uint8),
    "BOOL": ("bool", np.bool_),
    "C64": ("complex64", np.complex64),
}


class Tensor(NamedTuple):
    """A tensor as bytes, with the type as safetensors names it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file: its header as bytes, with its length, and its tensors by name."""

    header: bytes
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> WeightsFile:
        """Read a file.

        Raises:
            ModelError: It is not there, or no safetensors file.
        """
        try:
            content = path.read_bytes()
            found = {k: Tensor(v["dtype"], tuple(v["shape"]), bytes(v["data"])) for k, v in deserialize(content)}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} cannot be read as weights: {error}. Give the folder of a bundle.") from error
        return cls(content[: LENGTH + int.from_bytes(content[:LENGTH], "little")], found)

    @property
    def order(self) -> list[str]:
        """The names in the order in which the file holds the values."""
        placed = {k: v["data_offsets"] for k, v in json.loads(self.header[LENGTH:]).items() if k != "__metadata__"}
        return sorted(placed, key=placed.__getitem__)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return self.header + b"".join(self.tensors[name].data for name in self.order)

    def sha256(self) -> str:
        """Return the digest of the weights, as :meth:`unhot.Classifier.sha256` computes it of the loaded model.

        Raises:
            ModelError: The file has tensors of a type that no model of unhot has.
        """
        total = hashlib.sha256()
        for name, (dtype, shape, data) in sorted(self.tensors.items()):
            if dtype not in TORCH:
                raise ModelError(f"The weights hold a tensor of type {dtype}, {name!r}, which no model of unhot does.")
            total.update(f"{name} torch.{TORCH[dtype][0]} {shape}".encode())
            total.update(data if shape else str(_value(dtype, data)).encode())
        return total.hexdigest()


@dataclass(frozen=True)
class BundleFiles:
    """A bundle, checked against what it says of itself.

    Attributes:
        files: SHA-256 of each of its files.
        weights_sha256: Digest of the weights.
    """

    folder: Path
    info: BundleInfo
    files: dict[str, str]
    weights_sha256: str

    @classmethod
    def read(cls, folder: Path) -> BundleFiles:
        """Read a folder.

        Raises:
            ModelError: It is no bundle, or its weights are not those that ``bundle.json`` describes.
        """
        if not (folder / INFO).is_file() or not (folder / WEIGHTS).is_file():
            raise ModelError(f"{folder} is not a bundle: it needs {INFO} and {WEIGHTS}. Give the folder of a model.")
        info = BundleInfo.read(folder / INFO)
        files = {name: sha256(folder / name) for name in FILES if (folder / name).is_file()}
        if files[WEIGHTS] != info.weights_sha256:
            raise ModelError(f"{folder / WEIGHTS} is not the file that {INFO} describes. Restore the original bundle.")
        return cls(folder, info, files, WeightsFile.read(folder / WEIGHTS).sha256())


def _value(dtype: str, data: bytes) -> object:
    """Return the only value of a tensor without dimensions, as Python has it."""
    kind = TORCH[dtype][1]
    if kind is None:  # bfloat16: the upper half of a float32
        return np.frombuffer(b"\0\0" + data, np.float32)[0].item()
    return np.frombuffer(data, kind)[0].item()
