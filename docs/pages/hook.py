"""What mkdocs builds beside the Markdown files of docs/: files of the repository as pages, and links to them.

mkdocs calls the functions by their names.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "docs" / "pages"), str(ROOT / "docs")]
import api  # noqa: E402
import commands  # noqa: E402
import measures  # noqa: E402
import methods  # noqa: E402
import verdicts  # noqa: E402

import records  # noqa: E402

OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
GALLERY = ROOT / "build" / "gallery"  # gallery.py writes it
WIDE = ("understand/compare.md",)  # pages whose table takes the place of the table of contents
MADE: dict[str, Callable[[], str]] = {  # pages, and what takes the place of "made by make docs" in them
    "reference/cli.md": commands.page,
    "reference/methods.md": methods.page,
    "reference/python.md": api.page,
    "reference/records.md": records.page,
    "understand/measures.md": lambda: measures.page(GALLERY),
    "understand/verdicts.md": lambda: verdicts.page(GALLERY),
}
EXAMPLES = {f"examples/{p.name}": f"examples/{p.stem}.md" for p in sorted((ROOT / "examples").glob("*.py"))}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out the page of a server for what is not there: the site is a folder of files."""
    config.theme.static_templates.discard("404.html")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/, the schemas, and the pages of the gallery."""
    if not (GALLERY / "ready").exists():
        raise PluginError("The gallery is not there yet. Build the site with: make docs.")
    for source in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = re.sub(r"\]\(docs/", "](", (ROOT / source).read_text())
        files.append(File.generated(config, OUTSIDE[source], content=text))
    for source, page in EXAMPLES.items():
        files.append(File.generated(config, page, content=notebook((ROOT / source).read_text())))
    for name, schema in records.schemas().items():
        files.append(File.generated(config, f"reference/schemas/{name}.json", content=schema))
    for page in sorted(GALLERY.glob("*/report.html")):
        place = f"understand/gallery/{page.parent.name}/report.html"
        files.append(File.generated(config, place, abs_src_path=str(page)))
    return files


def notebook(script: str) -> str:
    """Return a script of cells ("# %%", "# %% [markdown]") as Markdown."""
    cells = re.findall(r"^# %%( \[markdown\])?\n(.*?)(?=^# %%|\Z)", script, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(
        re.sub(r"^# ?", "", text, flags=re.MULTILINE) if prose else f"```python\n{text.strip()}\n```\n"
        for prose, text in cells
    )


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add what is made; point links that leave docs/ to the pages that stand for these files; read folded Markdown."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    folder = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri in MADE:
        made = MADE[page.file.src_uri]()
        markdown = re.sub("<!-- made by make docs -->.*<!-- end -->", lambda _: made, markdown, flags=re.DOTALL)

    def pointed(found: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join("docs", folder, found[1]))
        target = (OUTSIDE | EXAMPLES).get(source)
        return f"]({posixpath.relpath(target, folder or '.')}" if target else found[0]

    markdown = markdown.replace("<details>", '<details markdown="1">')
    return re.sub(r"\]\(((?:\.\./)+[\w./-]+)", pointed, markdown)
