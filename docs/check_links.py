# Licensed under a 3-clause BSD style license - see LICENSE
"""
Check the links of built pages that lead into the documentation itself: files, anchors and pictures.

Sphinx warns of references that it cannot resolve, but not of raw links, or of anchors that a template or a
generated page lacks. No network is needed::

    python check_links.py _build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Targets and anchors of one page."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.targets |= {values[name] for name in ("href", "src") if values.get(name)}


def broken(folder):
    """Yield the page and the target of each link that leads nowhere."""
    # What the theme itself ships is not ours to check, and a report is a page of its own.
    pages = {
        path.resolve(): Page(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts
    }
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            where = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if where.is_dir():
                where = where / "index.html"
            if not where.exists() or (
                parts.fragment and where in pages and unquote(parts.fragment) not in pages[where].anchors
            ):
                yield path.relative_to(folder.resolve()), target


def main(arguments):
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        return f"usage: {Path(__file__).name} FOLDER of built pages"
    found = list(broken(Path(arguments[0])))
    print(*(f"{page}: {target}" for page, target in found), sep="\n", end="\n" if found else "")
    return f"{len(found)} links lead nowhere" if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
