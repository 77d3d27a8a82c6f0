from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from unhot import files
from unhot.errors import InputError, OutputError
from unhot.files import check_free, check_new, sha256, staged_file, staged_folder, write_atomic
from unhot.models import weights
from unhot.models.bundle import save
from unhot.models.classifier import Classifier


@pytest.fixture(autouse=True)
def _own_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("kept")))


HOLDER = """
import sys
from pathlib import Path
from unhot.files import staged_folder
with staged_folder(Path(sys.argv[1])) as stage:
    (stage / "theirs").write_text("x")
    print("staged", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(out: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that stages ``out`` and, when its input is closed, puts it into place."""
    call = [*prefix, sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        yield process
        process.kill()


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Run the test without the rights of root, which may write anywhere; gives a folder that anybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="unhot-test-", dir="/tmp"))
    folder.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


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


@pytest.mark.parametrize("name", ["out", "run[1]", "x" * 250, "ü" * 120])
def test_what_a_killed_process_left_is_cleared(tmp_path: Path, name: str) -> None:
    with writer(tmp_path / name) as process:
        process.kill()
        process.wait()
        assert len(names(tmp_path)) == 1
        with staged_folder(tmp_path / name) as stage:
            (stage / "mine").touch()
    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["mine"]


def in_a_container() -> list[str]:
    """Return what starts a command among process ids of its own, or nothing where that cannot be done."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    try:
        return unshare if subprocess.run([*unshare, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("prefix", [[], in_a_container()], ids=["here", "in a container"])
def test_what_another_process_is_writing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: list[str]
) -> None:
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.2)
    out = tmp_path / "out"
    with writer(out, *prefix) as process:
        for refused in (lambda: check_free(out), lambda: staged_folder(out).__enter__()):
            with pytest.raises(OutputError, match=r"being.*written.*process"):
                refused()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
    assert names(out) == ["theirs"]
    assert names(tmp_path) == ["out"]


def test_of_threads_that_write_one_folder_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    for i in range(10):
        out, won, told = tmp_path / str(i), list[int](), list[str]()

        def save(mine: int, out: Path = out, won: list[int] = won, told: list[str] = told) -> None:
            try:
                with staged_folder(out) as stage:
                    (stage / "who").write_text(str(mine))
                won.append(mine)
            except OutputError as error:
                told.append(str(error))

        threads = [threading.Thread(target=save, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert (len(won), len(told)) == (1, 3)
        assert (out / "who").read_text() == str(won[0])
        assert not [t for t in told if "exists and is not empty. Choose another --out" not in t]
        assert names(tmp_path) == [str(k) for k in range(i + 1)]


def test_threads_that_write_one_file_leave_one_of_their_files(tmp_path: Path) -> None:
    contents = [bytes([65 + k]) * 100_000 for k in range(6)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "a", c)) for c in contents]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """An empty folder at which a disk is mounted."""
    out = tmp_path / "disk"
    out.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", str(out)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("nothing can be mounted here")
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    yield out
    subprocess.run(["umount", str(out)], check=True)


def test_a_mount_point_is_filled(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.2)
    check_free(mounted)
    with staged_folder(mounted) as stage:
        (stage / "a").write_text("x")
        (stage / "deep").mkdir()
        (stage / "deep" / "b").touch()
        with pytest.raises(OutputError, match=r"is being written by another"):
            check_free(mounted)
    assert names(mounted) == ["a", "deep"]
    assert names(mounted / "deep") == ["b"]
    with pytest.raises(OutputError, match=r"not empty"):
        check_free(mounted)


def test_a_mount_point_that_is_filled_meanwhile_is_not_overwritten(mounted: Path) -> None:
    said = pytest.raises(OutputError, match=r"empty.*result.*kept")
    with said as caught, staged_folder(mounted) as stage:
        (stage / "a").write_text("mine")
        (mounted / "a").write_text("yours")
    assert names(mounted) == ["a"]
    assert (mounted / "a").read_text() == "yours"
    assert (kept_in(caught.value) / "a").read_text() == "mine"


def kept_in(error: Exception) -> Path:
    return Path(str(error).rpartition("kept in ")[2].removesuffix("."))


def test_an_empty_folder_in_one_that_is_read_only_is_filled(as_nobody: Path) -> None:
    out = as_nobody / "read-only" / "out"
    out.mkdir(parents=True)
    out.parent.chmod(0o555)
    check_free(out)
    with staged_folder(out) as stage:
        (stage / "a").write_text("x")
    assert names(out) == ["a"]
    assert names(out.parent) == ["out"]
    with pytest.raises(OutputError, match=r"written.*Permission.*denied"):
        check_free(out.parent / "new")
    with pytest.raises(OutputError, match=r"written.*Permission.*denied"):
        write_atomic(out.parent / "file", b"x")


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.EXDEV])
def test_what_cannot_be_put_into_place_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, "No")

    said = pytest.raises(OutputError, match=r"out cannot be written: No\. .* The result is kept in .*out\.$")
    with said as caught, staged_folder(tmp_path / "out") as stage:
        (stage / "a").write_text("the work of a day")
        monkeypatch.setattr(Path, "replace", fail)
    assert (kept_in(caught.value) / "a").read_text() == "the work of a day"
    assert names(tmp_path) == []


def test_the_rights_of_an_empty_folder_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    with staged_folder(out) as stage:
        (stage / "a").touch()
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_all_is_flushed_before_it_is_put_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the folder that holds it after that: until then a power failure may undo the rename."""
    done, replace, flush = list[int | str](), Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), flush(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("put"), replace(self, to)))
    out = tmp_path / "out"
    with staged_folder(out) as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / "a").touch()
    assert set(done[:3]) == {p.stat().st_ino for p in (out, out / "deep", out / "deep" / "a")}
    assert done[3:] == ["put", tmp_path.stat().st_ino]
    done.clear()
    write_atomic(tmp_path / "b", b"x")
    assert done == [(tmp_path / "b").stat().st_ino, "put", tmp_path.stat().st_ino]


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


def test_check_new(as_nobody: Path) -> None:
    (as_nobody / "there").touch()
    check_new(as_nobody / "new")
    for taken, reason in (("there", "exists"), ("none/new", "is not a folder"), ("x" * 300, "File name too long")):
        with pytest.raises(OutputError, match=reason):
            check_new(as_nobody / taken)
    as_nobody.chmod(0o555)
    with pytest.raises(OutputError, match=r"written.*Permission.*denied"):
        check_new(as_nobody / "new")
    assert names(as_nobody) == ["there"]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "new" / "deep")
    check_free(tmp_path / "empty")
    assert names(tmp_path) == ["empty"]
    assert names(tmp_path / "empty") == []


def test_a_staged_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    with staged_file(out) as path:
        path.write_bytes(b"whole")
        assert path.name == "m.onnx"
        assert not out.exists()
    assert (out.read_bytes(), [p.name for p in tmp_path.iterdir()]) == (b"whole", ["m.onnx"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_staged_file_leaves_nothing_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged_file(tmp_path / "m.onnx") as path:  # noqa: PT012
        path.write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_staged_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"mine")
    for out, said in ((tmp_path / "m.onnx", "exists"), (tmp_path / "no" / "m.onnx", "is not a folder. Make it first")):
        with pytest.raises(OutputError, match=said):
            staged_file(out).__enter__()
    with pytest.raises(OutputError, match="The disk is full"), staged_file(tmp_path / "n.onnx"):
        raise OSError(errno.ENOSPC, "no space")
    assert (tmp_path / "m.onnx").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


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


def test_a_half_written_file_of_a_killed_process_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".a.json.partial").mkdir()
    (tmp_path / ".a.json.partial" / "new").write_bytes(b"half")
    write_atomic(tmp_path / "a.json", b"new")
    assert names(tmp_path) == ["a.json"]


def test_a_file_beyond_the_limit_is_said(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from unhot.files import write_atomic; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); write_atomic(Path(sys.argv[1]), bytes(2000))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert "OutputError" in done.stderr
    assert "a was not written: the file is larger than the file system or a limit (ulimit -f) allows." in done.stderr
    assert names(tmp_path) == []


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize(("code", "said"), [(28, "The disk is full"), (122, "The disk is full"), (27, "ulimit -f")])
def test_a_disk_that_is_full_of_weights_is_said(
    tmp_path: Path, original: Classifier, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def save_file(*_: object) -> None:  # what safetensors 0.8 does on a full tmpfs
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")

    monkeypatch.setattr(weights, "save_file", save_file)
    with pytest.raises(OutputError, match=re.escape(said)):
        save(original, tmp_path / "out")
    assert torch.is_tensor(original.head_layer.weight)
