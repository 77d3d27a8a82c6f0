"""Every command and every line of Python of the page on exports runs, in the order of the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from unhot.cli import main
from unhot.models.bundle import save
from unhot.models.classifier import Classifier
from unhot.models.cut import cut_classes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()


@pytest.fixture
def here(original: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save(cut_classes(original.copy(), [original.label(3)], "mask"), tmp_path / "unlearned")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("keep_generators")
def test_the_page_runs_as_it_stands(here: Path) -> None:
    blocks = re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert sum(language == "python" for language, _ in blocks) >= 4
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "docs/export.md", "exec"), {})
            continue
        for line in text.splitlines():
            program, *argv = shlex.split(line)
            assert program == "unhot"
            assert main(argv) == 0, line
    with torch.no_grad():
        answers = torch.jit.load("from_python.pt")(torch.randn(500, 1, 16, 16, generator=torch.Generator()))
    assert 3 not in answers.argmax(1).tolist()


def test_the_page_says_what_the_code_accepts() -> None:
    from unhot.models.formats.exports.comparison import BATCHES, TOLERANCE

    text = " ".join(PAGE.split())
    assert "batches of {}, {}, {} and {}".format(*BATCHES) in text
    said = {torch.float32: "0.0001 in float32", torch.float16: "0.02 in float16", torch.bfloat16: "0.05 in bfloat16"}
    for kind, words in said.items():
        assert words in text
        assert float(words.split()[0]) == TOLERANCE[kind]
