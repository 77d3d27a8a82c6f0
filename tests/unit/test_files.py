from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from unhot import files
from unhot.errors import InputError, OutputError
from unhot.files import check_free, sha256, staged_folder, write_atomic
from unhot.models import bundle as bundles
from unhot.models.classifier import Classifier


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("existing", [False, True])
def test_a_staged_folder_appears_when_the_block_ends(tmp_path: Path, existing: bool) -> None:
    out = tmp_path / "out"
    if existing:
        out.mkdir()
    with staged_folder(out) as stage:
        (stage / "a").write_text("x")
        (stage / "deep").mkdir()
        assert not out.exists() or names(out) == []
    assert names(out) == ["a", "deep"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_staged_folder_leaves_nothing_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "out") as stage:
            (stage / "a").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_missing_parents_are_made(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a" / "b" / "out") as stage:
        (stage / "x").touch()
    assert names(tmp_path / "a" / "b") == ["out"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"The disk is full"), staged_folder(tmp_path / "out"):
        full()
    assert names(tmp_path) == []


def test_a_folder_filled_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"Nothing was overwritten"), staged_folder(out) as stage:  # noqa: PT012
        (stage / "mine").touch()
        out.mkdir()
        (out / "yours").touch()
    assert names(out) == ["yours"]
    assert names(tmp_path) == ["out"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, dead_pid: int) -> None:
    stale = tmp_path / f".out.partial-{dead_pid}"
    stale.mkdir()
    (stale / "half").touch()
    other, alive = tmp_path / f".other.partial-{dead_pid}", tmp_path / f".out.partial-{os.getppid()}"
    other.mkdir()
    alive.mkdir()
    with staged_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == sorted([other.name, alive.name, "out"])


def test_what_a_killed_process_of_the_same_id_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / f".out.partial-{os.getpid()}").mkdir()
    with staged_folder(tmp_path / "out") as stage:
        (stage / "a").touch()
    assert names(tmp_path / "out") == ["a"]


def test_check_free(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert check_free(tmp_path / "new" / "deep") is None
    assert check_free(tmp_path / "empty") is None
    for taken, reason in (("file", "not a folder"), ("used", "not empty"), ("link", "not a folder")):
        with pytest.raises(OutputError, match=reason):
            check_free(tmp_path / taken)


def test_check_free_refuses_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with pytest.raises(OutputError, match=r"not writable"):
        check_free(tmp_path / "out")


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, OutputError), (errno.EDQUOT, OutputError), (errno.EIO, OSError)]
)
def test_write_atomic_keeps_the_old_file_on_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(_: Path) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(files, "_fsync", fail)
    with pytest.raises(kind) as caught:
        write_atomic(path, b"new")
    assert isinstance(caught.value, InputError) == (kind is OutputError)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_a_half_written_file_of_a_killed_process_is_cleared(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".a.json.partial-{dead_pid}").write_bytes(b"half")
    write_atomic(tmp_path / "a.json", b"new")
    assert names(tmp_path) == ["a.json"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_disk_that_is_full_of_weights_is_said(
    tmp_path: Path, original: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(*_: object) -> None:  # what safetensors 0.8 does on a full tmpfs
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(bundles, "save_file", save_file)
    with pytest.raises(OutputError, match=r"The disk is full"):
        bundles.save(original, tmp_path / "out")
    assert torch.is_tensor(original.head_layer.weight)
