"""Files of models that hold no weights of torch, told by their first bytes and their names."""

from __future__ import annotations

import zipfile
from pathlib import Path

from unhot.errors import ModelError

NOT_OF_TORCH = {
    ".onnx": "an ONNX model",
    ".keras": "a Keras model",
    ".h5": "a Keras or HDF5 file",
    ".hdf5": "a Keras or HDF5 file",
    ".npz": "a file of numpy",
    ".npy": "a file of numpy",
    ".pb": "a TensorFlow model",
    ".tflite": "a TensorFlow Lite model",
    ".msgpack": "a file of Flax",
    ".pdparams": "a file of Paddle",
    ".gguf": "a GGUF file",
    ".mlmodel": "a Core ML model",
    ".engine": "a TensorRT engine",
}
HDF5 = b"\x89HDF\r\n\x1a\n"
NPY = b"\x93NUMPY"
INSTEAD = (
    "unhot changes the weights of a PyTorch net. Export its state_dict where it was trained "
    "(torch.save(net.state_dict(), 'weights.pt')), and give that with --arch."
)


def refuse_foreign(path: Path) -> None:
    """Refuse a file of another library.

    Raises:
        ModelError: With what it is, and what to do instead.
    """
    with path.open("rb") as file:
        start = file.read(len(HDF5))
    kind = NOT_OF_TORCH.get(path.suffix.lower(), "")
    if start == HDF5:
        kind = NOT_OF_TORCH[".h5"]
    elif start.startswith(NPY):
        kind = NOT_OF_TORCH[".npy"]
    elif start.startswith(b"PK") and (names := _names(path)):
        kind = NOT_OF_TORCH[".npz"] if all(n.endswith(".npy") for n in names) else kind
        kind = NOT_OF_TORCH[".keras"] if "model.weights.h5" in names else kind
    if kind:
        raise ModelError(f"{path} is {kind}, which is not supported. {INSTEAD}")


def program_in(path: Path) -> str:
    """Return which kind of compiled net a file holds: ``TorchScript``, ``pt2`` or nothing."""
    names = _names(path)
    if any("/code/" in f"/{n}" for n in names) and any(n.endswith("constants.pkl") for n in names):
        return "TorchScript"
    return "pt2" if any(n.endswith(("models/model.json", "serialized_exported_program.json")) for n in names) else ""


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []  # zipfile raises the last for an archive of a newer version than it reads
