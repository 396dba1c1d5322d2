"""The disk is full at each kind of write: one line says so, what was finished stays, and the way on ends well."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.faults.commands import (
    ABLATE,
    COMPARE,
    DETOKENIZE,
    EVALUATE,
    EVALUATE_PRIOR,
    FIT,
    FIT_PRIOR,
    NEW,
    PACK,
    RECONSTRUCT,
    SAMPLE,
    TOKENIZE,
    to,
    verb,
)
from tests.faults.conftest import Vltok, way_on, whole
from tests.faults.injected import fill_disk_at

pytestmark = pytest.mark.faults

_WRITES = [
    ("config.yaml", r"out/\.?config\.yaml", FIT),
    ("event file", r"out/logs/events", FIT),
    ("first checkpoint", r"out/checkpoints/.", FIT),
    ("bundle", r"out/\.bundle\.", FIT),
    ("metrics.json", r"out/\.metrics\.json", FIT),
    ("reconstructions.png", r"out/\.reconstructions", FIT),
    ("first checkpoint", r"out/checkpoints/.", FIT_PRIOR),
    ("bundle", r"out/\.bundle\.", FIT_PRIOR),
    ("metrics.json", r"out/\.metrics\.json", FIT_PRIOR),
    ("samples.png", r"out/\.samples", FIT_PRIOR),
    ("what it is about", r"run\.json", TOKENIZE),
    ("code shard", r"codes-000001\.tar", TOKENIZE),
    ("record of a shard", r"codes-000001\.json", TOKENIZE),
    ("index", r"codes\.index\.npy", TOKENIZE),
    ("manifest", r"codes\.json", TOKENIZE),
    ("code shard", r"rank-0\.lock", (*TOKENIZE, "--format=parquet")),
    ("picture", r"pictures/\.?000003", SAMPLE),
    ("coding map", r"coding_maps/\.?000003", SAMPLE),
    ("code shard", r"codes-000001\.tar", SAMPLE),
    ("manifest", r"codes\.json", SAMPLE),
    ("grid", r"\.grid\.png", SAMPLE),
    ("picture", r"cat/\.?005", DETOKENIZE),
    ("picture", r"out/\.003\.png", RECONSTRUCT),
    ("coding map", r"out/\.003\.coding\.png", RECONSTRUCT),
    ("metrics.json", r"\.metrics\.json", RECONSTRUCT),
    ("config.yaml", r"\.config\.yaml", EVALUATE),
    ("figures", r"out/\.[a-z]+\.json", EVALUATE),
    ("report", r"\.report\.html", EVALUATE),
    ("pictures", r"\.reconstructions\.png", EVALUATE),
    ("figures of images", r"\.images\.csv", EVALUATE),
    ("unfolding", r"unfolding", EVALUATE_PRIOR),
    ("packed shard", r"shard-000001", PACK),
    ("classes.json", r"classes\.json", PACK),
    ("table", r"\.table\.md", ABLATE),
    ("log of a run", r"seed-0\.log", ABLATE),
    ("table", r"\.table\.md", COMPARE),
    ("plot", r"\.[a-z_]+\.png", COMPARE),
    ("package", r"/\.out\.[^/]+/pyproject", NEW),
]


@pytest.mark.parametrize(
    ("what", "pattern", "command"), _WRITES, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_full_disk(
    what: str,
    pattern: str,
    command: tuple[str, ...],
    disk: Path,
    mounts: bool,
    undisturbed,
    vltok: Vltok,
    row,
) -> None:
    row(f"full disk: {what}", verb(command))
    out = disk / "out"
    expected = whole(undisturbed(command))
    # another language opens Parquet files, so that the moment is an earlier one
    free = 4096 if "--format=parquet" in command else 0
    fault = functools.partial(fill_disk_at, pattern, disk if mounts else None, free)
    line = vltok(*to(out, command), faults=[fault]).line("full|too large|space")
    row(f"full disk: {what}", verb(command), line)
    finished = whole(out) if out.exists() else {}
    assert set(finished) <= set(expected)
    (disk / "filler").unlink(missing_ok=True)
    vltok(*to(out, command), *way_on(out)).fine()
    assert set(whole(out)) == set(expected)
    if command[0] in ("tokenize", "sample", "pack", "detokenize"):
        assert whole(out) == expected
        assert all(whole(out)[name] == content for name, content in finished.items())
