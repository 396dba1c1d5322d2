"""That the judge of rubbish is one: what is a fault is called so."""

from pathlib import Path

import pytest

from .canaries import CANARY
from .cases import Case, run_case
from .warm import HANGS


class Said:
    """Stands for a process that does and says what a test wants."""

    def __init__(self, code: int, error: str = "", written: str | None = None) -> None:
        self._code, self._error, self._written = code, error, written

    def run(self, arguments, folder: Path, printed: Path, seconds: float, environment) -> int:
        Path(f"{printed}.out").write_text("")
        Path(f"{printed}.err").write_text(self._error)
        if self._written is not None:
            (folder / self._written).parent.mkdir(exist_ok=True)
            (folder / self._written).write_text("{")
        return self._code


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (Said(0), None),
        (Said(1, "vltok: error: so it is\n"), None),
        (Said(1, "vltok: warning: well\nvltok: error: so it is\n"), None),
        (Said(1, ""), "0 lines"),
        (Said(1, "vltok: error: a\nvltok: error: b\n"), "2 lines"),
        (Said(1, "vltok: error: a\nb\n"), "1 lines"),
        (Said(1, "a library\nvltok: error: b\n"), "also says 'a library'"),
        (Said(1, "vltok: unexpected: ValueError: x\n"), "nobody thought of it"),
        (Said(1, "Traceback (most recent call last)\nvltok: error: b\n"), "traceback"),
        (Said(1, f"vltok: error: {'x' * 500}\n"), "letters"),
        (Said(1, "vltok: error: \x1b[31mred\n"), "control character"),
        (Said(HANGS), "hangs"),
        (Said(-11), "signal 11"),
        (Said(0, "", CANARY), "executed"),
        (Said(1, "vltok: error: a\n", "in.txt"), "changed ['in.txt']"),
        (Said(1, "vltok: error: a\n", "out/.metrics.json.a1b2c3d4.json"), "left"),
        (Said(1, "vltok: error: a\n", "out/.unfinished"), "left"),
        (Said(0, "", "out/metrics.json"), "no good"),
    ],
)
def test_what_is_a_fault(said: Said, fault: str | None, tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "in.txt").write_text("sound")
    outcome = run_case(said, tmp_path / "sound", tmp_path / "case", "a", lambda draw, folder: Case("x", ("a",)), "0/0")
    assert (outcome.fault is None) if fault is None else (fault in outcome.fault), outcome
    assert not (tmp_path / "case").exists()
