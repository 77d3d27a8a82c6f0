"""Writing to disk so that a reader sees all of it or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unhot.errors import OutputError


def check_free(out: Path) -> None:
    """Refuse an output folder that exists and holds anything, or that cannot be made.

    Raises:
        OutputError: With what to do about it.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a folder. Choose another --out.")
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} exists and is not empty. Choose another --out, or remove it first.")
    parent = next(p for p in [out, *out.absolute().parents] if p.exists())
    if not parent.is_dir():
        raise OutputError(f"{parent} is not a folder. Choose another --out.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not writable. Choose another --out.")


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes ``out`` in one rename when the block ends well.

    After an error or an interrupt nothing is left; what a killed process left is cleared by the next one.

    Raises:
        OutputError: ``out`` is taken, or the disk is full.
    """
    check_free(out)
    out = out.absolute()
    stage = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        _clear_dead(out)
        stage.mkdir()
        yield stage
        for path in sorted(stage.rglob("*")):
            if path.is_file():
                _fsync(path)
        stage.replace(out)  # POSIX allows the target to be an empty folder, and nothing else
        _fsync(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"The disk is full: {out} was not written. Free some space and run again.") from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(f"{out} was filled by something else meanwhile. Nothing was overwritten.") from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it, and rename it into place."""
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        _clear_dead(path)
        temporary.write_bytes(data)
        _fsync(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"The disk is full: {path} was not written. Free some space and run again.") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clear_dead(out: Path) -> None:
    """Remove stages of ``out`` whose process is gone."""
    for stage in out.parent.glob(f".{out.name}.partial-*"):
        pid = stage.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(stage) if stage.is_dir() else stage.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
