"""The guide to a deletion request, docs/request.md: its commands and its code run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from requested import NOTES, call

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "request.md").read_text()

pytestmark = pytest.mark.filterwarnings(NOTES)


@pytest.mark.usefixtures("short_digits")
def test_the_story_of_the_guide(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|toml|)\n(.*?)```", GUIDE, flags=re.DOTALL)
    commands = [line for kind, block in blocks if not kind for line in block.splitlines()]
    assert len(commands) == 21
    (toml,) = (block for kind, block in blocks if kind == "toml")
    (tmp_path / "requests.toml").write_text(toml)
    said = {}
    for command in commands:
        first, *argv = shlex.split(command)
        assert first == "unhot"
        code = call(*argv)
        said[command] = capsys.readouterr()
        assert code == (2 if "--out third" in command else 0), said[command].err
    assert "holds: all 6 checks." in said["unhot verify first-record --key keys/unhot.pub --model first"].out
    assert "verdict: the same for every holder" in said[next(c for c in commands if "--remeasure" in c)].out
    assert "holds: all 8 checks." in said[next(c for c in commands if c.startswith("unhot verify second"))].out
    answer = said[next(c for c in commands if "--out third" in c)].err
    quoted = " ".join(re.findall(r"^> (.*)$", GUIDE, flags=re.MULTILINE))
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", answer.strip()) == re.sub(r"\d{4}-\d\d-\d\d", "DAY", quoted)
    assert "In force: R-1." in said["unhot log back"].out
    assert "In force: R-2." in said["unhot log replayed/R-2/model"].out
    for name in ("model.safetensors", "bundle.json", "record.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    assert "Certified: R-3, R-4. The model is now requests/R-4/model." in said["unhot request requests.toml"].out
    (code,) = (block for kind, block in blocks if kind == "python")
    exec(code, {})
    assert "model.safetensors" in capsys.readouterr().out
