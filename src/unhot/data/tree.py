"""FileTree: the pictures of a folder or an archive by their paths, whatever keeps them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch
from PIL import Image

from unhot.data.decoding import HEAD_BYTES, THREADS, is_picture, open_bytes, open_picture
from unhot.data.images import LabelledImages, Pictures
from unhot.errors import DataError, DataWarning, shortened, warn

SUFFIXES = frozenset(Image.registered_extensions()) | {".heic", ".heif", ".hif", ".dcm", ".dicom", ".npy"}
UNWANTED = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})  # what file managers leave behind; hidden files too


@dataclass(frozen=True)
class FileTree:
    """Pictures by their paths, which are relative and have slashes on every system.

    Attributes:
        root: The folder or archive, for messages.
        paths: Paths of the pictures, sorted part by part.
        folders: Paths of all folders, empty ones too.
        left_out: Paths of what is no picture, or hidden; of a hidden folder its own path.
        read: Returns the content of a picture.
        file: Returns the file of a picture, if it is one by itself.
    """

    root: Path
    paths: tuple[str, ...]
    folders: frozenset[str]
    left_out: tuple[str, ...]
    read: Callable[[str], bytes]
    file: Callable[[str], Path] | None = None

    @classmethod
    def of_folder(cls, root: Path) -> FileTree:
        """List a folder and all folders in it; pictures are not opened, except where a name does not tell them.

        Raises:
            DataError: It cannot be listed.
        """
        files, folders, left_out = list[str](), list[str](), list[str]()
        for path, kind in _walk(root, "", (os.path.realpath(root),)):
            place = left_out if unwanted(path) or kind == "other" else folders if kind == "folder" else files
            place.append(path)
        pictures, others = told_apart(files, lambda p: _head(root / p))
        return cls(
            root,
            in_order(pictures),
            frozenset(folders),
            (*left_out, *others),
            lambda p: (root / p).read_bytes(),
            lambda p: root / p,
        )

    @classmethod
    def of_members(cls, root: Path, members: Iterable[str], read: Callable[[str], bytes]) -> FileTree:
        """Sort the members of an archive, which are paths; those that end in a slash are folders.

        Raises:
            DataError: A path leads out of the archive, as one does that is made to overwrite other files.
        """
        files, folders, left_out = list[str](), set[str](), dict[str, None]()
        for member in members:
            path = PurePosixPath(member.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in (path.parts or ("",))[0]:
                raise DataError(f"{root} holds the path {member!r}, which leads out of it. Make the archive again.")
            hidden = [p for p in (*reversed(path.parents[:-1]), path) if unwanted(str(p))]
            if hidden:
                left_out[str(hidden[0])] = None
                continue
            folders.update(str(p) for p in path.parents[:-1])
            if member.endswith("/"):
                folders.add(str(path))
            else:
                files.append(member)
        pictures, others = told_apart(files, lambda p: read(p)[:HEAD_BYTES])
        return cls(root, in_order(pictures), frozenset(folders), (*left_out, *others), read)

    def below(self, folder: str) -> list[str]:
        """Return the paths in a folder and in all folders in it; all for an empty name."""
        deeper = [path for name in self.subfolders(folder) for path in self.below(joined(folder, name))]
        return self.direct(folder) + deeper

    def subfolders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder, sorted; of those at the top for an empty name."""
        return self._names.get(folder, [])

    def direct(self, folder: str) -> list[str]:
        """Return the paths of the pictures directly in a folder; of those at the top for an empty name."""
        return self._direct.get(folder, [])

    @cached_property
    def _direct(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for path in self.paths:
            found[path.rpartition("/")[0]].append(path)
        return dict(found)

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for path in sorted(self.folders):
            parent, _, name = path.rpartition("/")
            found[parent].append(name)
        return dict(found)

    def pictures(self, paths: list[str]) -> Pictures:
        """Return some of the pictures, to be decoded when they are needed."""
        file, read = self.file, self.read

        def name(i: int) -> str:
            return f"{self.root}/{paths[i]}"

        if file is None:
            return Pictures(lambda i: open_bytes(read(paths[i]), name(i)), len(paths), None, name, THREADS)
        return Pictures(
            lambda i: open_picture(file(paths[i])), len(paths), None, name, THREADS, lambda i: file(paths[i])
        )

    def images(
        self, paths: list[str], labels: torch.Tensor, class_names: tuple[str, ...] | None, within: str, origin: str
    ) -> LabelledImages:
        """Make images of pictures and labels int64 (N,); keys are paths relative to the folder ``within``."""
        cut = len(within) + 1 if within else 0
        return LabelledImages(self.pictures(paths), labels, class_names, origin, tuple(p[cut:] for p in paths))

    def say_left_out(self, also: Iterable[str] = ()) -> None:
        """Warn of what is no picture, or hidden."""
        if found := [*self.left_out, *also]:
            warn(
                f"{self.root}: hidden files and files that are not pictures are left out: {shortened(sorted(found))}.",
                DataWarning,
            )


def joined(folder: str, name: str) -> str:
    """Return the path of what is in a folder; at the top, the folder's path is empty."""
    return f"{folder}/{name}" if folder else name


def unwanted(path: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by a file manager."""
    name = path.rpartition("/")[2]
    return name.startswith(".") or name in UNWANTED


def told_apart(files: Iterable[str], head: Callable[[str], bytes]) -> tuple[list[str], list[str]]:
    """Return which files are pictures, by their ending or, where they have none, by their first bytes; and the rest."""
    pictures, others = list[str](), list[str]()
    for path in files:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a million paths
        found = suffix in SUFFIXES or (suffix in ("", ".bin", ".img", ".ima") and is_picture(head(path)))
        (pictures if found else others).append(path)
    return pictures, others


def in_order(paths: Iterable[str]) -> tuple[str, ...]:
    """Sort paths part by part, as the folders of a tree are sorted."""
    return tuple(sorted(paths, key=lambda p: p.split("/")))


def _walk(folder: Path, start: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the path of everything in a folder, and whether it is a folder, a file or something else.

    A link to nothing is a file that will be found broken; one to a folder above would never end, and is something else.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. Check its permissions.") from error
    for entry in entries:
        path = f"{start}{entry.name}"
        if not entry.is_dir():
            yield path, "file" if entry.is_file() or entry.is_symlink() else "other"
        elif (real := os.path.realpath(entry.path)) in above:
            yield path, "other"
        else:
            yield path, "folder"
            if not unwanted(path):
                yield from _walk(Path(entry.path), f"{path}/", (*above, real))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""  # it is left out, and said
