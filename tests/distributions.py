"""Installed distributions for tests: a folder with metadata and one module, to be put on the path."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from vltok import registry


@contextmanager
def installed(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    source: str = "",
    requires: Sequence[str] = (),
) -> Iterator[None]:
    """Have a distribution for a while, version 1.5, with the module NAME_module.

    Args:
        folder: Where to write it.
        name: Its name.
        entry_points: For each kind of component, or ``kinds`` to declare some, names and targets.
        source: The module's text.
        requires: What it depends on.
    """
    information = folder / name / f"{name}-1.5.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.5", *(f"Requires-Dist: {each}" for each in requires)]
    (information / "METADATA").write_text("\n".join(lines) + "\n")
    sections = [
        "\n".join([f"[{_group(kind)}]", *(f"{key} = {target}" for key, target in points.items())])
        for kind, points in entry_points.items()
    ]
    (information / "entry_points.txt").write_text("\n".join(sections) + "\n")
    (folder / name / f"{name}_module.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / name))
        yield
    sys.modules.pop(f"{name}_module", None)
    registry._import.cache_clear()


def _group(kind: str) -> str:
    return registry.KINDS[kind][0] if kind in registry.KINDS else f"vltok.{kind}"
