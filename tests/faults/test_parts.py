"""An export of many pictures in many independent parts, a third of which are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.verbs.parts import check_killed_parts

pytestmark = pytest.mark.faults


def test_killed_parts(tmp_path: Path, row) -> None:
    row("21 of 64 parts killed", "tokenize")
    check_killed_parts(tmp_path, 100_000, 250, 64)
