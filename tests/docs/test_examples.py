"""The scripts of examples/ run as they are, and print what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from pages import DOCS

EXAMPLES = DOCS.parent / "examples"

pytestmark = [
    pytest.mark.filterwarnings("default::unhot.errors.UnhotWarning"),
    pytest.mark.usefixtures("own_methods", "keep_generators"),
]


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_model_of_ones_own(capsys) -> None:
    lines = printed("own_model", capsys)
    assert "images of the class still recognised: 0 of 16" in lines
    assert [line.partition(":")[0] for line in lines if line.startswith("whoever")] == [
        f"whoever holds the {holder}" for holder in ("outputs", "features", "weights")
    ]
    assert Path("unlearned.pt").exists()
    assert Path("own-model-audit/report.html").exists()


def test_two_checkpoints(capsys) -> None:
    lines = printed("audit_two_checkpoints", capsys)
    first, second = lines[:4], lines[4:]
    assert first[0].startswith("row set to 0   forget accuracy 0.000")
    assert all(line.endswith("hidden at the output only") for line in first[1:])
    assert second[0].startswith("trained again  forget accuracy 0.000")
    assert not any("hidden" in line for line in second)


def test_a_method_of_ones_own(capsys) -> None:
    lines = printed("method_of_your_own", capsys)
    assert [line.split()[0] for line in lines] == ["fade", "fade-all", "nhle-cwm"]
    assert lines[-1].startswith("nhle-cwm   forget accuracy 0.000")


def test_every_example_is_run() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.py")} == {"own_model", "audit_two_checkpoints", "method_of_your_own"}
