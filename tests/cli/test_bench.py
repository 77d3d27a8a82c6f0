"""``unhot bench`` from outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from unhot.cli import main

GRID = """
schema = 1
name = "from outside"
[fixed]
dataset = "digits"
arch = "lenet5"
shots = 4
retrained = 0
train = { epochs = 1 }
[grid]
class = [1]
[[method]]
name = "mask"
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_a_grid_is_run_and_its_files_are_named(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(grid), "--out", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["done"], said["failed"]) == (1, [])
    assert {Path(f).name for f in said["files"]} == {"results.json", "results.csv", "tables.md"}
    assert all(Path(f).is_file() for f in said["files"])
    assert len(list((tmp_path / "out" / "timings").rglob("timing.json"))) == 1


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(["bench", str(grid), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 cells, 1 of them to do, and 1 models to train: about" in said
    assert re.search(r"\(training \d+ seconds, forgetting \d+ seconds, audits \d+ seconds, timing \d+ seconds\)", said)
    assert "How long mask will take is a guess until a cell is done" in said
    assert main(["bench", str(grid), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["cells"]) == 1
    parts = [plan[f"{name}_seconds"] for name in ("training", "forgetting", "audits", "timing")]
    assert min(plan["seconds"], *parts) >= 0
    assert plan["seconds"] == pytest.approx(sum(parts), abs=0.3)
    assert plan["guessed"] == ["mask"]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "needs a folder for its results. Set --out"),
        (["--out", "{grid}"], "is a file. Choose another --out."),
        (["--out", "{out}", "--ray-address", "x"], "--ray-address needs --backend ray."),
    ],
)
def test_bad_options_are_answered_in_one_sentence(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    given = [m.format(grid=grid, out=tmp_path / "out") for m in more]
    assert main(["bench", str(grid), *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bad_grid_is_refused_before_anything_runs(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid.write_text(GRID.replace('"mask"', '"maskk"').replace("digits", "digitz"))
    assert main(["bench", str(grid), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "maskk" in said
    assert "digitz" in said
    assert not (tmp_path / "out").exists()
