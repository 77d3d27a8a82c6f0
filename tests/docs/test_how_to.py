"""The how-to pages: their commands and their Python run as they stand, on real digits."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pages import DOCS, Said, run

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
def test_your_model(bundle: Path, elsewhere: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(elsewhere, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = Pages(bundle, capsys)("your-model")
    for out in ("hf-unlearned", "timm-unlearned", "tv-unlearned", "own-unlearned"):
        assert re.match("(Forgot|Cut) three .*nhle-cwm from 16 images", said_by(said, f"--out {out}").out), out
    assert "unhot forget would go on." in said_by(said, "unhot doctor").out
