"""What README and docs say is true."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unhot.cli import main
from unhot.evaluation import metrics
from unhot.evaluation.stats import mean
from unhot.methods import catalogue
from unhot.records.measure import Measure
from unhot.testing import check_metric

ROOT = Path(__file__).resolve().parents[2]
GUIDE_FILE = ROOT / "CONTRIBUTING.md"
GUIDE = GUIDE_FILE.read_text()
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(folder / "unhot-demo")]) == 0
    return folder


def test_the_python_of_the_readme_runs_as_it_stands(demo, monkeypatch, capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    script = demo / "readme.py"
    script.write_text(code)
    monkeypatch.chdir(demo)
    names = runpy.run_path(str(script))
    value, verdict = capsys.readouterr().out.split(" ", 1)
    assert float(value) == 0.0
    assert verdict.strip() == names["audit"].record.verdict.label


def test_the_demo_writes_four_models_and_a_page(demo) -> None:
    out = demo / "unhot-demo"
    for name in ("original", "unlearned", "renewed", "retrained"):
        assert {p.name for p in (out / name).iterdir()} == {"bundle.json", "model.safetensors", "record.json"}
    for page in (out / "report.html", out / "audit-unlearned" / "report.html", out / "audit-renewed" / "report.html"):
        assert page.stat().st_size > 5_000


def test_every_command_that_the_docs_name_exists(capsys) -> None:
    text = "\n".join(p.read_text() for p in (ROOT / "README.md", GUIDE_FILE, *(ROOT / "docs").rglob("*.md")))
    named = set(re.findall(r"(?:`|^```\n)unhot ([a-z]+)", text, flags=re.MULTILINE))
    assert main(["--help"]) == 0
    known = set(re.findall(r"^  ([a-z]+)  ", capsys.readouterr().out, flags=re.MULTILINE))
    assert len(named) > 15
    assert named <= known


def test_tables_are_those_of_the_committed_records() -> None:
    run = subprocess.run([sys.executable, ROOT / "docs" / "make_tables.py", "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_metric_of_the_guide_keeps_its_contract() -> None:
    code = next(c for c in re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL) if c.startswith("@metrics"))
    try:
        exec(
            "from __future__ import annotations\n" + code,
            {"metrics": metrics, "Measure": Measure, "mean": mean, "torch": torch},
        )
        assert check_metric("entropy") is None
    finally:
        metrics.catalogue._entries.pop("entropy", None)
        metrics.catalogue._loaded.pop("entropy", None)


def test_every_method_has_a_page_or_a_line_in_the_docs() -> None:
    text = README + "".join(p.read_text() for p in (ROOT / "docs").rglob("*.md"))
    assert [name for name in catalogue if name not in text] == []


def test_every_place_that_the_architecture_names_is_there() -> None:
    """A place is named from src/unhot, or from the folder that was named before it."""
    text, source = (ROOT / "docs" / "architecture.md").read_text(), ROOT / "src" / "unhot"
    there = [f"/{p.relative_to(source)}" for p in source.rglob("*")]
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+)[`:]", text)
    assert len(named) > 60
    assert [n for n in named if not any(p.endswith(f"/{n.rstrip('/')}") for p in there)] == []


def links(page: Path) -> list[tuple[str, str]]:
    """Return the files of the repository that a page links to, and the place in each, as it is written."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match("[a-z]+:", link)]
    return [(link.partition("#")[0], link.partition("#")[2]) for link in found]


def places(page: Path) -> set[str]:
    """Return the places of a page, named after its headings as code hosts name them."""
    heads = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere_where_the_pages_are_read_as_files(page) -> None:
    for link, place in links(page):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        made = target.suffix != ".md" or "<!-- made by make docs -->" in target.read_text()
        assert not place or made or place in places(target), f"{link}#{place}"
