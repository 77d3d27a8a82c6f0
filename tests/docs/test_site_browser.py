"""The scripts of the documentation in a real browser, on pages that are opened from a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "docs" / "assets"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

TABLE = """<div class="compare" data-choose="data"><table>
<thead><tr><th>method</th><th>data</th><th>lost</th></tr></thead>
<tbody><tr><td>a</td><td>digits</td><td>1,200</td></tr><tr><td>b</td><td>faces</td><td>–</td></tr>
<tr><td>c</td><td>digits</td><td>-0.5</td></tr><tr><td>d</td><td>faces</td><td>30</td></tr></tbody></table></div>"""
SHOWN = """document.title = [...document.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.cells[0].textContent).join("")"""


def title(folder: Path, script: str, body: str, then: str) -> str:
    """Return the title that a page gives itself, after a script of the documentation and some lines more."""
    page = folder / "page.html"
    source = (ASSETS / script).as_uri()
    page.write_text(f'<body>{body}<script src="{source}"></script><script>{then}</script></body>')
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return re.findall("<title>(.*?)</title>", found)[-1]


@pytest.mark.parametrize(
    ("does", "rows"),
    [
        ("", "abcd"),
        ("heads[2].click()", "cdab"),  # as numbers; what is none comes last
        ("heads[2].click(); heads[2].click()", "adcb"),
        ("heads[0].click(); heads[0].click()", "dcba"),
        ("choose('select', 'digits')", "ac"),
        ("choose('input', 'FACES'); heads[2].click()", "db"),
        ("choose('select', 'digits'); choose('select', '')", "abcd"),
    ],
)
def test_a_table_is_sorted_and_filtered(tmp_path: Path, does: str, rows: str) -> None:
    then = f"""const heads = document.querySelectorAll("th button");
    function choose(kind, value) {{
      const control = document.querySelector(kind);
      control.value = value;
      control.dispatchEvent(new Event("input"));
    }}
    {does}; {SHOWN}"""
    assert title(tmp_path, "compare.js", TABLE, then) == rows


def test_a_worker_runs_on_a_page_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "part.js").write_text("self.twice = (x) => 2 * x")
    (tmp_path / "worker.js").write_text(
        'addEventListener("message", async ({data}) => { await importScripts("part.js"); postMessage(twice(data)); })'
    )
    then = """const worker = new Worker("worker.js");
    worker.addEventListener("message", ({data}) => { document.title = `got ${data}`; });
    worker.postMessage(21)"""
    assert title(tmp_path, "iframe-worker.js", "", then) == "got 42"
