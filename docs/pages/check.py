"""Check a built site: nothing is fetched from elsewhere, every picture has words, and every link leads somewhere.

python docs/pages/check.py site
"""

from __future__ import annotations

import argparse
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"src", "srcset", "poster", "data"}  # attributes whose address a browser opens by itself
LINKS_OPENED = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest", "modulepreload", "prefetch"}


class Names(HTMLParser):
    """What a page fetches, its pictures without words, its links, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.unnamed: list[str] = []
        self.places: set[str] = {"", "__toc", "__drawer", "__search"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag fetches or links to; called for each."""
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        self.fetched += [found[name] for name in FETCHED & found.keys()]
        if tag == "link" and LINKS_OPENED & set(found.get("rel", "").split()):
            self.fetched.append(found.get("href", ""))
        elif tag == "img" and "alt" not in found:
            self.unnamed.append(found.get("src", ""))
        elif tag in ("a", "area") and found.get("href"):
            self.links.append(found["href"])


def foreign(address: str) -> bool:
    """Say whether an address is on another machine."""
    return bool(urlsplit(address).netloc)


def problems(site: Path) -> list[str]:
    """Return what is wrong with a site, a line each."""
    pages = {path: Names(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, names in pages.items():
        where = path.relative_to(site)
        found += [f"{where} fetches {address}" for address in names.fetched if foreign(address)]
        found += [f"{where} shows {address[:80]} without words (alt)" for address in names.unnamed]
        for link in [*names.links, *names.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where} links to {link}, which is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{where} links to {link}, a place that is not there")
    for path in site.rglob("*.css"):
        found += [
            f"{path.relative_to(site)} fetches {a}"
            for a in re.findall(r"(?:url\(|@import )[\"']?(https?:[^)\"']*)", path.read_text())
        ]
    return found


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("site", type=Path)
    found = problems(args.parse_args().site.resolve())
    print("\n".join(found) or "Nothing is fetched from elsewhere, and every link leads somewhere.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
