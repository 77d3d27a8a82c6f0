"""Archives of class folders: zip and tar files, which are read where they are; nothing is unpacked onto the disk."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from unhot.data.contents import Contents, of_tree
from unhot.data.decoding import MAX_FILE_BYTES
from unhot.data.tree import FileTree
from unhot.errors import DataError, DataWarning, first_line, shortened, warn

DAMAGES = tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError  # what a damaged archive raises
ZIP = b"PK\3\4"
MOST_HELD = 2 << 30  # bytes of the files in a compressed tar file, which are held in memory


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, or the beginning of one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP or zipfile.is_zipfile(path)


def is_tar(path: Path) -> bool:
    """Return whether a file is a tar archive, compressed or not."""
    return path.is_file() and tarfile.is_tarfile(path)


def read_zip(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read class folders, or pictures of one class, in a zip archive.

    Raises:
        DataError: It is damaged or encrypted, or its paths lead out of it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, *DAMAGES) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}). Make the archive again.") from error
    found = {info.filename: info for info in archive.infolist()}
    if any(info.flag_bits & 1 for info in found.values()):
        raise DataError(f"{path} is encrypted. Unpack it, and give the folder.")

    def read(name: str) -> bytes:
        info = found[name]
        too_large(f"{path}/{name}", info.file_size)
        try:
            with archive.open(info) as file:
                return file.read(MAX_FILE_BYTES)
        except Exception as error:  # of the archive, and of what decompresses it
            raise DataError(f"{path} is damaged at {name} ({first_line(error)}). Make the archive again.") from error

    return of_tree(FileTree.of_members(path, found, read), wanted)


def read_tar(path: Path, wanted: Sequence[str] = ()) -> Contents:
    """Read class folders, or pictures of one class, in a tar archive.

    Raises:
        DataError: It is damaged, or its paths lead out of it.
    """
    members, read = members_of_tar(path)
    return of_tree(FileTree.of_members(path, members, read), wanted)


def members_of_tar(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Return the paths in a tar archive and what reads one; links and devices are left out and said.

    A file in a plain archive is read where it lies. Those of a compressed one are decompressed once and held.

    Raises:
        DataError: It is damaged, or compressed and too large.
    """
    try:
        with tarfile.open(path) as archive:
            listed = archive.getmembers()
            plain = path.stat().st_size >= sum(m.size for m in listed if m.isreg()) and _is_plain(path)
            held = {} if plain else _held(archive, listed, path)
    except DAMAGES as error:
        raise DataError(f"{path} is damaged ({first_line(error)}). Make the archive again.") from error
    if odd := [m.name for m in listed if not (m.isreg() or m.isdir())]:
        warn(f"{path}: links and devices are left out: {shortened(odd)}.", DataWarning)
    files = {m.name: m for m in listed if m.isreg()}

    def read(name: str) -> bytes:
        if not plain:
            return held[name]
        member = files[name]
        too_large(f"{path}/{name}", member.size)
        with path.open("rb") as file:
            file.seek(member.offset_data)
            return file.read(member.size)

    return [m.name + "/" * m.isdir() for m in listed if m.isreg() or m.isdir()], read


def too_large(name: str, size: int) -> None:
    """Refuse a file in an archive that is larger than pictures may be, before it is read.

    Raises:
        DataError: It is.
    """
    if size > MAX_FILE_BYTES:
        raise DataError(f"{name} has {size:,} bytes, more than {MAX_FILE_BYTES:,}. Make it smaller.")


def _is_plain(path: Path) -> bool:
    """Return whether a tar archive is not compressed."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _held(archive: tarfile.TarFile, listed: list[tarfile.TarInfo], path: Path) -> dict[str, bytes]:
    """Return the content of every file in a compressed archive, which can only be read from front to end."""
    files = [m for m in listed if m.isreg()]
    if sum(m.size for m in files) > MOST_HELD:
        raise DataError(
            f"{path} is compressed and holds more than {MOST_HELD:,} bytes. Unpack it, and give the folder."
        )
    return {m.name: file.read() for m in files if (file := archive.extractfile(m)) is not None}
