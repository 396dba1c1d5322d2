"""What a bundle says of the files that it was made from, without the folders of the machine on which they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vltok.io.hub import is_hub_name

#: Paths that start at a root, a drive, a home or the present folder.
_ROOTED = re.compile(r"(file:|pipe:|~[^/\\\s]*[/\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|[/\\])")
#: A user's name and password in an address.
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
#: The JSON of a card, and the texts in it.
_JSON = re.compile(r"^```json\n.*?^```", re.MULTILINE | re.DOTALL)
_TEXT = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')


def without_places(provenance: Mapping[str, Any], card: str) -> tuple[dict[str, Any], str]:
    """What made a bundle, and its card, with the name of each file or folder in place of its path.

    Addresses of other machines stay, without the names and passwords of users; names on the Hub stay.
    """
    names: dict[str, str] = {}
    shortened = _shortened(dict(provenance), names)
    for path, name in sorted(names.items(), key=lambda pair: -len(pair[0])):
        for written in (json.dumps(path)[1:-1], path):
            # a path may be as short as "./", which stands in addresses too
            card = name.join(re.split(rf"(?<![\w./\\-]){re.escape(written)}(?!\.?[\w/\\-])", card))
    return shortened, _JSON.sub(lambda block: _TEXT.sub(_shorter, block[0]), card)


def _shorter(found: re.Match[str]) -> str:
    text = json.loads(found[0])
    return json.dumps(_name(text), ensure_ascii=False) if _ROOTED.match(text) else found[0]


def _shortened(tree: Any, names: dict[str, str]) -> Any:
    if isinstance(tree, dict):
        return {key: _shortened(value, names) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_shortened(value, names) for value in tree]
    if isinstance(tree, str) and (name := _name(tree)) != tree:
        names[tree] = name
        return name
    return tree


def _name(text: str) -> str:
    """The last part of a path; what is none stays."""
    if "://" in text and not text.startswith("file:"):
        return _CREDENTIALS.sub("", text)
    inside = re.search(r"[/\\]", text) and not re.search(r"\s", text)
    if not _ROOTED.match(text) and not (inside and (Path(text).exists() or not is_hub_name(text))):
        return text
    whole = PureWindowsPath(text) if "\\" in text else PurePosixPath(text)
    return whole.name or "folder"
