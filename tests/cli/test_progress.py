import io
import sys

import pytest

from vltok.cli import progress
from vltok.verbs.counting import format_seconds


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_tell_how_far_how_fast_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    clock = iter([0.0, 4.0, 11.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.shown("tokenize") as tell:
        tell(20, 100)  # what was done before does not count for the speed
        tell(30, 100)  # too soon for a line
        tell(64, 100)
        tell(100, 100)
    assert capsys.readouterr().err.splitlines() == [
        "tokenize: 64/100, 4.0 images/s, 9 s left",
        "tokenize: 100/100, 4.0 images/s, 0 s left",
    ]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.shown("tokenize") as tell:
        tell(20, 100)
        tell(100, 100)
    assert "100/100" in terminal.getvalue() and "images/s" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.0, "59 min 59 s"),
        (3600.0, "1 h 0 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
