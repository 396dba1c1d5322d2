"""How long the command takes to help."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .table import Row, Setting, timed

#: Seconds within which help must be there.
LIMIT = 0.5


def rows(setting: Setting) -> Iterator[Row]:
    """`vltok --help`, and that of two verbs."""
    for words in (["--help"], ["sample", "--help"], ["fit", "--help"]):
        command = [sys.executable, "-m", "vltok", *words]
        seconds = [
            timed(lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), "cpu")
            for _ in range(1 if setting.tiny else setting.turns)
        ]
        yield Row(
            f"vltok {' '.join(words)}",
            "",
            f"{min(seconds):.2f} s",
            f"limit {LIMIT} s",
            [LIMIT / second for second in seconds],
            target=1.0,
        )
