"""Reading files of weights of unknown origin: no code in them runs, and memory and time are bounded by their size."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load
from torch import Tensor
from torch.serialization import safe_globals

from unhot.errors import ModelError, first_line, raise_all, shortened
from unhot.models.formats.foreign import program_in, refuse_foreign
from unhot.models.formats.placeholders import is_placeholder, placeholders
from unhot.models.formats.state_dicts import state_in
from unhot.models.weights import odd_tensors
from unhot.reading import parse_json, read_text
from unhot.runtime.silence import silence
from unhot.shared_state import SHARED_STATE

LARGEST_PICKLE = 10_000_000  # objects, counted once for each reference, as comparing or hashing them would
LONGEST_PICKLE = 1_000_000  # operations; a tensor takes about thirty
OF_FOLDERS = ("model.safetensors", "pytorch_model.bin")
PICKLES = 5  # pickles in a file from before torch 1.6


def read_weights(
    path: Path, trust_pickle: bool = False, sha256: str | None = None, key: str | None = None
) -> dict[str, Tensor]:
    """Read a state dict; nothing in the file is run unless ``trust_pickle`` is set.

    Args:
        path: A safetensors file, or one of torch.
        trust_pickle: Whether the file may run code while it is loaded.
        sha256: SHA-256 of the bytes of a safetensors file, if it is known.
        key: Under which key of a file of torch the weights are, if the user says so.

    Raises:
        ModelError: It is missing, damaged, would run code, or holds tensors that cannot be used.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ModelError(f"{path} is not a regular file. Pass a file of weights.")  # opening a pipe would wait
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path, sha256)
        refuse_foreign(path)
        with path.open("rb") as file:
            state = state_in(_read_torch(file, path, trust_pickle), path, key)
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    problems = odd_tensors(state.items())
    large = [] if problems or trust_pickle else [n for n, t in state.items() if t.nbytes > size]
    problems += [f"{shortened(large, 5)} would take more memory than the file is long."] if large else []
    raise_all(ModelError, str(path), problems)
    return state


def read_folder(folder: Path, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Read the weights of a folder of transformers or timm, which may be several files with an index.

    Raises:
        ModelError: There are none, or they cannot be used.
    """
    for name in OF_FOLDERS:
        if (folder / name).is_file():
            return read_weights(folder / name, trust_pickle)
        if (index := folder / f"{name}.index.json").is_file():
            return _read_shards(index, trust_pickle)
    raise ModelError(f"{folder} holds no weights. It needs {' or '.join(OF_FOLDERS)}.")


def _read_shards(index: Path, trust_pickle: bool) -> dict[str, Tensor]:
    content = parse_json(read_text(index), str(index))
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise ModelError(f"{index} names no files of weights. Save the model again.")
    files = sorted(set(places.values()))
    if outside := [f for f in files if Path(f).name != f]:
        raise ModelError(f"{index} names a file outside its folder: {outside[0]!r}. Save the model again.")
    return {k: v for f in files for k, v in read_weights(index.with_name(f), trust_pickle).items()}


def _read_safetensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(f"{path} is not the file that bundle.json describes. Restore the original bundle.")
    try:
        state: dict[str, Tensor] = load(content)
    except Exception as error:  # of an unknown number type it raises a KeyError
        raise ModelError(f"{path} is not a readable safetensors file ({first_line(error)}).") from error
    raise_all(ModelError, str(path), odd_tensors(state.items()))
    return state


def _read_torch(file: IO[bytes], path: Path, trust_pickle: bool) -> Any:
    if program := program_in(path):
        return _program_state(program, path, trust_pickle)
    try:
        if not trust_pickle:
            _check_pickles(file)
        with SHARED_STATE, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other pickle protocols; an unreadable file is an error below
            with safe_globals([] if trust_pickle else placeholders(file)):
                file.seek(0)
                loaded = torch.load(file, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        if trust_pickle or "weights_only" not in str(error).lower():
            raise ModelError(f"{path} is damaged, or not a file of torch ({first_line(error)}).") from error
        raise ModelError(_may_run_code(path)) from error
    except Exception as error:  # torch raises many kinds on a damaged file
        raise ModelError(f"{path} is damaged, or not a file of torch ({first_line(error)}).") from error
    if is_placeholder(loaded):
        raise ModelError(_may_run_code(path))
    return loaded


def _may_run_code(path: Path) -> str:
    return (
        f"{path} is not a plain file of weights: loading it may run code, so it was not loaded. Save the "
        "state_dict as safetensors, or pass --trust-pickle if you trust where it is from."
    )


def _program_state(program: str, path: Path, trust_pickle: bool) -> dict[str, Tensor]:
    """Return the weights of a compiled net."""
    if not trust_pickle:
        raise ModelError(
            f"{path} is a compiled net ({program}), not a file of weights: loading it may run code, so it was not "
            "loaded. Save the state_dict of the net that it was made from, or pass --trust-pickle if you trust where "
            "it is from; its weights are then used in the net that --arch builds."
        )
    try:
        with silence():
            made = torch.jit.load(path, "cpu") if program == "TorchScript" else torch.export.load(path)
        state: dict[str, Tensor] = made.state_dict() if program == "TorchScript" else made.state_dict
    except Exception as error:  # torch raises many kinds on a damaged file
        raise ModelError(f"{path} is damaged, or not a file of torch ({first_line(error)}).") from error
    return {k: v.detach() for k, v in state.items()}


def _check_pickles(file: IO[bytes]) -> None:
    """Refuse a file of torch that would take much more time or memory than its size suggests.

    Raises:
        ValueError: With the reason.
    """
    if file.read(4) != b"PK\x03\x04":
        file.seek(0)
        for _ in range(PICKLES):
            if not file.peek(1):  # type: ignore[attr-defined]
                return
            _check_pickle(file)
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
            raise ValueError("it is compressed, which torch never does")
        if len({e.filename for e in entries}) < len(entries) or sum(e.file_size for e in entries) > file.seek(0, 2):
            raise ValueError("its entries overlap")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as pickled:
                    _check_pickle(pickled)


def _check_pickle(file: IO[bytes]) -> None:
    """Follow a pickle without making its objects, only counting the contents of each object on the stack.

    Raises:
        ValueError: It holds too much, or is damaged.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[Any, int] = {}
    for done, (op, arg, _) in enumerate(pickletools.genops(file)):
        if done == LONGEST_PICKLE:
            raise ValueError(f"it takes more than {LONGEST_PICKLE:,} operations, which no file of weights does")
        if op.name in ("GLOBAL", "INST") and str(arg).endswith(" bytearray"):
            raise ValueError("it holds a bytearray, which no weights are")
        count, before = 1, list(op.stack_before)
        if pickletools.stackslice in before:
            while (top := stack.pop()) is not None:
                count += top
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            count += stack.pop() or 0
        if op.name in ("GET", "BINGET", "LONG_BINGET"):
            count = memo[arg]
        if count > LARGEST_PICKLE:
            raise ValueError("it refers to so many objects that no file of weights does")
        stack += [None if made is pickletools.markobject else count for made in op.stack_after]
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if op.name == "MEMOIZE" else arg] = stack[-1] or 0
