"""The summary and the model-card section."""

from __future__ import annotations

import re

from unhot.evaluation.catalogue import BUILTIN
from unhot.report.audited import Audited
from unhot.report.markdown import model_card, summary
from unhot.report.texts import WITHOUT_RETRAINED


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_the_summary_says_it_all_in_short(example) -> None:
    text = (example / "summary.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# Unlearning audit: kind 3 (class 3)",
        "## What was forgotten, and from what",
        "## Measurements",
        "## Cost",
        "## What this does not prove",
    ]
    assert "**Verdict: short of a retrained model.**" in text
    assert f"- Unlearned model: SHA-256 `{'2' * 64}`" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(BUILTIN) + 2
    assert {columns(line) for line in lines} == {6}
    assert "no formal guarantee" in text
    assert "Note: Nearest neighbours is below" in text


def test_the_card_is_a_section_without_metadata(example) -> None:
    text = (example / "model-card.md").read_text()
    assert text.startswith("## Forgotten classes\n")
    assert "---\n" not in re.sub(r"\|[-|: ]+\|\n", "", text)
    assert "method nhle-cwm of unhot 1.0 from 16 images" in text
    assert "seed 7" in text
    assert "short of a retrained model" in text
    assert "| Linear probe |" in text
    assert "### Limits" in text


def test_what_is_absent_has_its_reason(make, write) -> None:
    audit = Audited.read(write(make(retrained=0, quick=True, made=False))).record
    text = summary(audit)
    assert "absent: no retrained model was given" in text
    assert "absent: left out by --quick" in text
    assert WITHOUT_RETRAINED in text
    assert "How it was made is not known." in model_card(audit)
    assert not re.search(r"\b(nan|None)\b", text + model_card(audit))


def test_each_holder_has_a_line_in_the_summary_and_in_the_card(make) -> None:
    record = make(held=True)
    for text in (summary(record), model_card(record)):
        lines = [line for line in text.splitlines() if line.startswith("- Whoever holds the ")]
        assert [line.split()[4] for line in lines] == ["outputs:", "features:", "weights:"]
        assert "short of a retrained model. Recovery from one image: unlearned 0" in lines[1]
