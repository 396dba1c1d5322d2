"""A plug-in of pytest that prints the table of `make faults`: a row for each fault and verb, and what came of it."""

from __future__ import annotations

import shutil

import pytest

_OUTCOMES = {"passed": "ok", "failed": "FAILED", "skipped": "not run"}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a row for each test."""
    rows = []
    for key, outcome in (("passed", "ok"), ("failed", "FAILED"), ("error", "FAILED"), ("skipped", "not run")):
        for report in terminalreporter.getreports(key):
            if not isinstance(report, pytest.TestReport):
                continue
            said = dict(report.user_properties)
            where = report.nodeid.rpartition("/")[2]
            said.setdefault("fault", where.partition("::test_")[2].replace("_", " "))
            said.setdefault("verb", where.partition(".py")[0].removeprefix("test_"))
            if outcome == "not run":
                said["line"] = str(report.longrepr[2]).removeprefix("Skipped: ")
            elif outcome == "FAILED":
                said["line"] = (
                    str(getattr(report.longrepr, "reprcrash", "")).partition("\n")[0].rpartition("Error: ")[2]
                )
            rows.append((said["fault"], said["verb"], outcome, said.get("line", "nothing lost")))
    if not rows:
        return
    terminalreporter.section("faults")
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    width = max(shutil.get_terminal_size((200, 24)).columns, 160)
    for row in sorted(rows):
        start = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
        line = " ".join(row[3].split())
        room = max(width - len(start) - 2, 40)
        terminalreporter.write_line(f"{start}  {line if len(line) <= room else line[: room - 1] + '…'}")
    counts = {outcome: sum(row[2] == outcome for row in rows) for outcome in _OUTCOMES.values()}
    terminalreporter.write_line(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
