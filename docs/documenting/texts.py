"""Texts of the repository, as pages have them."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: The files that have a page here.
PAGES = {
    "CHANGELOG.md": "/changelog.md",
    "CONTRIBUTING.md": "/contributing.md",
    "SECURITY.md": "/security.md",
    "recipes/RESULTS.md": "/results.md",
    "vltok/interfaces/__init__.py": "/api/interfaces.md",
}
_LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?:|#)([^)]+)\)")


def text(name: str) -> str:
    """A file of Markdown. Its links lead to pages, and are none where there is no page."""
    return _relinked((ROOT / name).read_text(encoding="utf-8"), posixpath.dirname(name))


def readme(begin: str) -> str:
    """What stands below the heading of the README that begins with these words; below the title without any.

    Raises:
        ValueError: There is no such heading, or there are several.
    """
    parts = re.split(r"^##? (.+)\n", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [body for title, body in zip(parts[1::2], parts[2::2], strict=True) if title.startswith(begin)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} headings of the README begin with '{begin}'")
    return _relinked(found[0].strip())


def _relinked(markdown: str, folder: str = "") -> str:
    def link(found: re.Match[str]) -> str:
        image, words, target = found[1], found[2], posixpath.normpath(posixpath.join(folder, found[3]))
        if image:
            return f"![{words}](/../{target})"
        return f"[{words}]({PAGES[target]})" if target in PAGES else words

    return _LINK.sub(link, markdown)
