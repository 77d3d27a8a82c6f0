"""The how-to pages: their commands and their Python run as they stand, on real digits."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from pages import DOCS, Said, run
from unhot.cli import main
from unhot.evaluation import attacks, metrics

pytestmark = [
    pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning"),  # a net of few epochs is not sure of all samples
    pytest.mark.usefixtures("short_digits", "keep_generators"),
]


class Pages:
    """Runs pages in the working directory, in which photos/ holds pictures of digits."""

    def __init__(self, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.trained, self.capsys = trained, capsys

    def __call__(self, name: str, exits: dict[str, int] | None = None) -> dict[str, Said]:
        return run(DOCS / "how-to" / f"{name}.md", self.capsys, trained=self.trained, exits=exits)


@pytest.fixture
def page(
    bundle: Path,
    digit_folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Pages:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digit_folders, "photos")
    return Pages(bundle, capsys)


@pytest.fixture
def own_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other tests know nothing of the metrics and attacks that a page registers."""
    for catalogue in (metrics.catalogue, attacks.catalogue):
        for known in ("_entries", "_loaded"):
            monkeypatch.setattr(catalogue, known, dict(getattr(catalogue, known)))


def said_by(said: dict[str, Said], part: str) -> Said:
    (found,) = (s for command, s in said.items() if part in command)
    return found


def test_several_classes(page: Pages) -> None:
    said = page("several-classes")
    assert said_by(said, "--class round").out.startswith("Forgot round with nhle-cwm from 32 images")


def test_forget_again(page: Pages) -> None:
    page("forget-again", exits={"--out third": 2})


def test_data_you_have(page: Pages) -> None:
    said = page("data-you-have")
    assert "with nhle-guard from" in said_by(said, "--guard").out
    assert "Accuracy on the retained classes" not in said_by(said, "only-samples").out


def test_bounds_in_ci(page: Pages) -> None:
    page("bounds-in-ci", exits={"verdict.features>=short": 3})
    assert Path("audit-2/report.html").exists()


def test_audit_a_model(page: Pages) -> None:
    page("audit-a-model")


def test_part_of_a_class(page: Pages) -> None:
    page("part-of-a-class", exits={"--out refused": 2})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_your_model(bundle: Path, elsewhere: Path, named_folders: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(elsewhere, tmp_path, dirs_exist_ok=True)
    shutil.copytree(named_folders, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = Pages(bundle, capsys)("your-model")
    for out in ("hf-unlearned", "timm-unlearned", "tv-unlearned", "own-unlearned"):
        assert re.match("(Forgot|Cut) three .*nhle-cwm from 16 images", said_by(said, f"--out {out}").out), out
    assert "unhot forget would go on." in said_by(said, "unhot doctor").out


def test_face_recogniser(bundle: Path, named_folders: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(named_folders, "photos")
    for split in ("train", "test"):
        Path("photos", split, "three").rename(Path("photos", split, "anna"))
    said = Pages(bundle, capsys)("face-recogniser")
    assert said_by(said, "unhot doctor").out.endswith("unhot forget would go on.\n")


@pytest.mark.usefixtures("own_methods", "own_measures")
def test_add_a_method(page: Pages, bundle: Path) -> None:
    shutil.copytree(bundle, "model")
    page("add-a-method")


def test_cluster(page: Pages) -> None:
    said = page("cluster")
    job = Path("bench.sh").read_text().splitlines()[-1]
    assert main(shlex.split(job)[1:]) == 0
    assert "2 cells, 2 of them to do, and 1 models to train" in said_by(said, "grid.toml --dry-run").out
    assert "2 cells, 0 of them to do" in said_by(said, "--backend ray").out


def test_start(page: Pages) -> None:
    page("../start")


def test_every_page_is_run() -> None:
    """Each page has a test, named after it."""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {p.stem.replace("-", "_") for p in (DOCS / "how-to").glob("*.md")} <= tests
