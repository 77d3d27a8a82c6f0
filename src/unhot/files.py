"""Atomic writing: a reader sees all of a file or folder or nothing, whatever other processes and threads do meanwhile.

Output is staged in a hidden folder beside its place, ``.NAME.partial``, and renamed into place. The hidden folder
contains a lock that one thread of one process holds at a time, across machines and containers, and that the system
releases however its holder ends. So anything there while the lock is free was left by a killed process, and the next
writer removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from unhot.errors import OutputError

WAIT_SECONDS = 10.0  # time to wait for another writer of the same file or folder

FULL = {
    errno.ENOSPC: "The disk is full: {} was not written. Free some space and run again.",
    errno.EDQUOT: "The disk is full: {} was not written. Free some space and run again.",
    errno.EFBIG: "{} was not written: the file is larger than the file system or a limit (ulimit -f) allows. Choose "
    "another place, or raise the limit.",
}
TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
UNWRITABLE = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "EBUSY", "ENAMETOOLONG", "ENOTDIR", "EISDIR", "ELOOP", "ENOENT", "EXDEV"),
        *("ETXTBSY", "EINVAL", "EILSEQ"),
    )
    if hasattr(errno, name)
)


def check_free(out: Path) -> None:
    """Refuse an output folder that exists and holds anything, or that cannot be written, by trying to write it.

    Raises:
        OutputError: With what to do about it.
    """
    with output_errors(out), _stage_of(out.absolute()):
        pass


def check_new(out: Path) -> None:
    """Refuse an output file that exists, or that cannot be written, by trying to write beside it.

    Raises:
        OutputError: With what to do about it.
    """
    with output_errors(out):
        _check_new(out)
        with _locked(out.absolute(), out.absolute().parent) as temporary:
            temporary.touch()


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``out`` in one rename when the block succeeds.

    After an error or an interrupt nothing is left; leftovers of a killed process are removed by the next one. Of
    several that write one folder at the same time, one succeeds. A folder that exists, is empty and cannot be replaced
    (a mount point, or a folder in a read-only one) is filled file by file instead.

    Raises:
        OutputError: ``out`` is taken or cannot be written, or the disk is full. A finished result that could not be
            moved into place is kept elsewhere, and the error says where.
    """
    with ExitStack() as stack:
        with output_errors(out):
            stage = stack.enter_context(_stage_of(out.absolute()))
        with output_errors(out, FULL):
            yield stage
            for path in (*stage.rglob("*"), stage):
                _fsync(path)
        try:
            with output_errors(out):
                _put(stage, out.absolute())
        except OSError as error:
            raise OutputError(f"{error}{_kept(stage, out.absolute().name)}") from error


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """Yield the path of a file of the same name in a hidden folder; it becomes ``out`` when the block succeeds.

    After an error or an interrupt nothing is left. The block writes the file.

    Raises:
        OutputError: ``out`` exists or cannot be written, or the disk is full.
    """
    target = out.absolute()
    with ExitStack() as stack:
        with output_errors(out):
            _check_new(out)
            stage = stack.enter_context(_locked(target, target.parent))
            _check_new(out)  # the previous holder of the lock may have written it
            stage.mkdir()
        with output_errors(out, FULL):
            yield stage / target.name
            _fsync(stage / target.name)
        with output_errors(out):
            (stage / target.name).replace(target)
            _fsync(target.parent)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other commands that hold it out of it while the block runs.

    Raises:
        OutputError: Another command holds it, which is said at once, or it cannot be written.
    """
    message = f"Another unhot command is working in {folder}. Wait until it has ended, and give this one again."
    with ExitStack() as stack:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder.absolute(), folder.absolute(), 0, message))
        yield


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it, and rename it into place.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    with _replaced(path) as temporary:
        temporary.write_bytes(data)


def update_atomic(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file by what a function makes of its content, which nobody else can replace meanwhile.

    Args:
        path: The file.
        change: Gets the content, empty if there is no file, and returns the new one. If it raises, nothing changes.

    Raises:
        OutputError: Another process holds the file, the disk is full, or the place cannot be written.
    """
    with _replaced(path) as temporary:
        temporary.write_bytes(change(path.read_bytes() if path.exists() else b""))


@contextmanager
def output_errors(out: Path, known: dict[int, str] | None = None) -> Iterator[None]:
    """Turn errors of the system about a place that cannot be written into errors that say what to do.

    Args:
        out: The file or folder that is written.
        known: Messages by error number, to turn only these errors.

    Raises:
        OutputError: Instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        text = (FULL if known is None else known).get(error.errno)
        if known is None and error.errno in TAKEN:
            text = "{} was filled by another process meanwhile. Nothing was overwritten."
        elif known is None and error.errno in UNWRITABLE:
            text = f"{{}} cannot be written: {error.strerror}. Choose another place."
        if text is None:
            raise
        raise OutputError(text.format(out)) from error


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_new(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists. Choose another --out, or remove it first.")
    if not (parent := out.absolute().parent).is_dir():
        raise OutputError(f"{parent} is not a folder. Make it first, or choose another place.")


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary file, in the hands of one writer at a time, that takes the place of ``path`` at the end."""
    with output_errors(path), _locked(path.absolute(), path.absolute().parent) as temporary:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)


@contextmanager
def _stage_of(out: Path) -> Iterator[Path]:
    """Check that a folder is free, and yield an empty one that can take its place."""
    _check_empty(out)
    made = [p for p in out.parents if not p.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _locked(out, _home(out)) as stage:
            _check_empty(out)  # the previous holder of the lock may have filled it
            stage.mkdir()
            yield stage
    finally:
        for parent in made:
            with suppress(OSError):  # not empty: it holds the output
                parent.rmdir()


def _check_empty(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a folder. Choose another --out.")
    if out.is_dir() and any(p != _hidden(out, out) for p in out.iterdir()):
        raise OutputError(f"{out} exists and is not empty. Choose another --out, or remove it first.")
    parent = next(p for p in out.parents if p.exists())
    if not parent.is_dir():
        raise OutputError(f"{parent} is not a folder. Choose another --out.")


def _home(out: Path) -> Path:
    """Return where to stage a folder: beside it, or in it if a trial shows that it cannot be replaced."""
    if not out.exists():
        return out.parent
    try:
        with _locked(out, out.parent) as stage:
            stage.mkdir()
            stage.chmod(stat.S_IMODE(out.stat().st_mode))
            stage.replace(out)  # POSIX allows the target to be an empty folder, and nothing else; Windows not even that
    except OutputError:
        raise
    except OSError as error:
        if error.errno in TAKEN:
            _check_empty(out)
        return out
    return out.parent


@contextmanager
def _locked(target: Path, home: Path, wait: float = WAIT_SECONDS, taken: str = "") -> Iterator[Path]:
    """Yield a free path in a hidden folder of ``home``, locked while the block runs; ``taken`` is said if it is not."""
    from filelock import FileLock, Timeout  # slow to import, and not needed by commands that only read

    hidden = _hidden(target, home)
    lock, stage = FileLock(hidden / "lock"), hidden / "new"
    while not lock.is_locked:
        with suppress(FileExistsError):
            hidden.mkdir()
        try:
            lock.acquire(timeout=wait)
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        except Timeout as error:
            raise OutputError(
                taken or f"{target} is being written by another process. Choose another place, or wait."
            ) from error
    try:
        _remove(stage)
        yield stage
    finally:
        _remove(stage)
        with suppress(OSError):  # Windows removes it when it is released
            (hidden / "lock").unlink()
        lock.release()
        with suppress(OSError):  # somebody else may hold it already
            hidden.rmdir()


def _hidden(target: Path, home: Path) -> Path:
    """Return the folder in which ``target`` is staged; its name is short enough however long that of ``target`` is."""
    name = target.name if len(os.fsencode(target.name)) < 200 else hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return home / f".{name}.partial"


def _put(stage: Path, out: Path) -> None:
    """Move the staged folder into place."""
    if stage.parent.parent == out:
        _check_empty(out)
        # the largest first, so that small files, which describe the others, come last
        for path in sorted(stage.iterdir(), key=lambda p: -p.stat().st_size):
            path.rename(out / path.name)
        _fsync(out)
    else:
        if out.exists():
            stage.chmod(stat.S_IMODE(out.stat().st_mode))
        stage.replace(out)
        _fsync(out.parent)


def _kept(stage: Path, name: str) -> str:
    """Copy a result that could not be moved into place to the system's temporary folder; return a sentence on it."""
    with suppress(OSError):
        return f" The result is kept in {shutil.copytree(stage, Path(tempfile.mkdtemp(prefix='unhot-')) / name)}."
    return ""


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows can neither open nor flush a folder
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
