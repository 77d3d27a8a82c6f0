"""The guide to a deletion request, docs/request.md: its commands and its code run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from requested import NOTES

from pages import DOCS, run

GUIDE = DOCS / "request.md"

pytestmark = pytest.mark.filterwarnings(NOTES)


@pytest.mark.usefixtures("short_digits")
def test_the_story_of_the_guide(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(GUIDE, capsys, exits={"--out third": 2})
    assert len(said) == 22
    assert "holds: all 6 checks." in said["unhot verify first-record --key keys/unhot.pub --model first"].out
    assert "verdict: the same for every holder" in said[next(c for c in said if "--remeasure" in c)].out
    assert "holds: all 8 checks." in said[next(c for c in said if c.startswith("unhot verify second"))].out
    answer = said[next(c for c in said if "--out third" in c)].err
    quoted = " ".join(re.findall(r"^> (.*)$", GUIDE.read_text(), flags=re.MULTILINE))
    assert re.sub(r"\d{4}-\d\d-\d\d", "DAY", answer.strip()) == re.sub(r"\d{4}-\d\d-\d\d", "DAY", quoted)
    assert "In force: R-1." in said["unhot log back"].out
    assert "In force: R-2." in said["unhot log replayed/R-2/model"].out
    for name in ("model.safetensors", "bundle.json", "record.json"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    assert "Certified: R-3, R-4. The model is now requests/R-4/model." in said["unhot request requests.toml"].out
