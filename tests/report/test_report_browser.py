"""The page in a real browser: headless Chromium, spoken to in the DevTools protocol over a pair of pipes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from select import select

import pytest

from unhot.deletion.certify import Made, record_of
from unhot.deletion.weights_file import BundleFiles
from unhot.records.deletion import Request
from unhot.records.ledger import Ledger
from unhot.records.model import BundleInfo
from unhot.report.deletion import render as deletion_page
from unhot.report.page import load, render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
# the browser reads commands from descriptor 3 and answers on 4
LAUNCH = (
    "import os, sys; a, b = map(int, sys.argv[1:3]); os.dup2(a, 13); os.dup2(b, 14); os.dup2(13, 3); os.dup2(14, 4); "
)
LAUNCH += "os.execv(sys.argv[3], sys.argv[3:])"
WIDTHS = (1280, 390)
A4 = 673  # pixels between the margins
SECONDS = 30

# drawings are images, whose text no script sees: they are put in their places
INLINE = """
document.querySelectorAll('img.plot').forEach(img => {
  const text = new TextDecoder().decode(Uint8Array.from(atob(img.src.split(',')[1]), c => c.charCodeAt(0)));
  const svg = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement;
  svg.setAttribute('class', 'plot');
  svg.dataset.alt = img.alt;
  svg.style.cssText = img.style.cssText + '; display: block; height: auto';
  img.replaceWith(svg);
})"""

OVERLAPS = """
[...document.querySelectorAll('svg.plot')].flatMap(svg => {
  const level = t => !(t.getAttribute('transform') || '').match(/rotate\\(-?35/);
  const boxes = [...svg.querySelectorAll('text')].filter(level).map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
    Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1.5 &&
    Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > Math.min(p.height, q.height) * 0.35
  ).map(([b]) => svg.dataset.alt + ': ' + a + ' / ' + b));
})"""
CUT_OFF = """
[...document.querySelectorAll('svg.plot')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => {
    const b = t.getBoundingClientRect();
    return b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
  }).map(t => svg.dataset.alt + ': ' + t.textContent);
})"""
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(e => {
  if (e.closest('.scroll') || e.closest('svg') || e.closest('.hidden') || e.closest('thead')) return false;
  const b = e.getBoundingClientRect();
  return b.width > 0 && (b.right > document.documentElement.clientWidth + 0.5 || b.left < -0.5);
}).map(e => e.tagName + '.' + e.className)"""


PLANT = """
(() => {
  const [, same, left] = document.querySelectorAll('svg.plot text');
  same.parentNode.append(same.cloneNode(true));
  left.setAttribute('x', '-90');
  const wide = document.createElement('p');
  wide.style.width = '2000px';
  wide.textContent = 'wide';
  document.body.append(wide);
})()"""


class Browser:
    """One page of a running Chromium, and everything that it asked for or complained about."""

    def __init__(self, home: Path) -> None:
        (reads, self._in), (self._out, writes) = os.pipe(), os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(reads), str(writes), CHROMIUM, *FLAGS, f"--user-data-dir={home}"]
        environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*command, "about:blank"], pass_fds=(reads, writes), cwd=home, env=environment, stdout=quiet, stderr=quiet
        )
        os.close(reads)
        os.close(writes)
        self._rest, self._count, self.events = b"", 0, []
        target = self.call("Target.createTarget", session=None, url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", session=None, targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _message(self, until: float) -> dict:
        while b"\0" not in self._rest:
            if not select([self._out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self._out, 1 << 16)
            if not chunk:
                raise EOFError("Chromium has ended")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, session: str | None = "", **params: object) -> dict:
        self._count += 1
        own = {"id": self._count, "method": method, "params": params}
        if session is not None:
            own["sessionId"] = self._session
        os.write(self._in, json.dumps(own).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while (message := self._message(until)).get("id") != self._count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path, width: int) -> None:
        """Show a file in a window of some width, and wait until it has loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        until = time.monotonic() + SECONDS
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message(until))

    def ask(self, expression: str) -> object:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def shoot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        try:
            self.call("Browser.close", session=None)
            self._process.wait(10)
        except (OSError, EOFError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (Debian package chromium)")
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(example: Path, make, write, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The kinds of page that there are: usual, with nothing but the least, with a lot, and of several audits."""
    names = [f"class-with-a-long-name-{i}" for i in range(100)]
    much = make(names=names, forgotten=(3, 50, 99), retrained=5)
    kinds = {
        "least": [write(make(retrained=0, quick=True, made=False))],
        "much": [write(much, "a-folder-with-a-rather-long-name-that-has-no-spaces-" * 3)],
        "several": [example, write(make(retrained=2, held=True), "second"), write(make(retrained=0), "third")],
    }
    out = tmp_path_factory.mktemp("pages")
    for name, folders in kinds.items():
        (out / f"{name}.html").write_text(render(load(folders)))
    return {"usual": example / "report.html", **{name: out / f"{name}.html" for name in kinds}}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["usual", "least", "much", "several"])
def test_the_page_fits_asks_for_nothing_and_logs_nothing(browser: Browser, pages, kind: str, width: int) -> None:
    browser.open(pages[kind], width)
    assert browser.ask("window.innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.ask(OUTSIDE) == []
    assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)") is True
    browser.ask(INLINE)
    assert browser.ask("document.querySelectorAll('svg.plot').length") > 4
    assert browser.ask(CUT_OFF) == []
    assert browser.ask(OVERLAPS) == []
    methods = [e["method"] for e in browser.events]
    complaints = [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert complaints == []
    assert "Runtime.consoleAPICalled" not in methods
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [u for u in asked if not u.startswith("data:")] == [pages[kind].as_uri()]


@pytest.fixture(scope="module")
def deletion(make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a deletion record, of a class with a long name and with two audits."""
    audit = make(names=[f"class-with-a-long-name-{i}" for i in range(40)], forgotten=(3, 30), retrained=2)
    bundle = BundleFiles(Path("u"), BundleInfo.model_construct(), {"model.safetensors": "a" * 64}, "2" * 64)
    made = Made(bundle, audit.made_by, ((audit, "b" * 64), (audit, "c" * 64)))
    asked = Request(id="R-1", reason="consent-was-withdrawn-" * 20, note="a note " * 40, approved_by="the board")
    record = record_of(made, asked, Ledger(), datetime(2026, 11, 28, tzinfo=UTC))
    path = tmp_path_factory.mktemp("deletion") / "record.html"
    path.write_text(deletion_page(record))
    return path


@pytest.mark.parametrize("width", [*WIDTHS, A4])
def test_the_page_of_a_deletion_fits_asks_for_nothing_and_prints(browser: Browser, deletion: Path, width: int) -> None:
    browser.open(deletion, width)
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert [u for u in asked if not u.startswith("data:")] == [deletion.as_uri()]
    assert [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
    assert browser.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.ask(OUTSIDE) == []
    browser.call("Emulation.setEmulatedMedia", media="print")
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert width != A4 or browser.ask(cut) == 0
    browser.call("Emulation.setEmulatedMedia", media="")


def test_the_checks_find_planted_faults(browser: Browser, pages) -> None:
    browser.open(pages["usual"], 390)
    browser.ask(INLINE)
    browser.ask(PLANT)
    assert [len(browser.ask(check)) > 0 for check in (OVERLAPS, CUT_OFF, OUTSIDE)] == [True] * 3
    assert browser.ask("document.documentElement.scrollWidth") > 2000


def test_the_page_prints(browser: Browser, pages) -> None:
    browser.open(pages["usual"], A4)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.ask(OUTSIDE) == []
    browser.call("Emulation.setEmulatedMedia", media="")
    sheet = browser.call("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
    data = base64.b64decode(sheet["data"])
    assert data.startswith(b"%PDF")
    assert 3 <= data.count(b"/Type /Page\n") <= 20
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.ask(INLINE)
    assert browser.ask(OVERLAPS) == []
    browser.call("Emulation.setEmulatedMedia", media="")
