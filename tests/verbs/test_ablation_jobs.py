"""The processes of a table of ablations: each step of a job is one, and what fails is named."""

from pathlib import Path

from vltok.verbs.ablation_jobs import _Step, run_all


class Planned:
    """A job of some steps, each of which writes its log."""

    def __init__(self, name: str, *steps: _Step) -> None:
        self.name, self.steps = name, steps

    def next_step(self) -> _Step | None:
        return next((step for step in self.steps if not step.log.exists()), None)


def test_steps_follow_one_another_and_a_failure_is_named(tmp_path: Path) -> None:
    good = Planned("good", _Step(("recipes",), tmp_path / "a" / "1.log"), _Step(("new", "--help"), tmp_path / "2.log"))
    wrong = Planned("wrong", _Step(("nonsense",), tmp_path / "3.log"), _Step(("recipes",), tmp_path / "4.log"))
    said: list[str] = []
    assert run_all([good, wrong, Planned("done")], 2, said.append, ()) == ["wrong"]
    assert "quickstart" in (tmp_path / "a" / "1.log").read_text() and "vltok new" in (tmp_path / "2.log").read_text()
    assert not (tmp_path / "4.log").exists()
    assert said[0] == "1 of 3 runs have finished before" and len(said) == 3
    (failed,) = [line for line in said if "wrong: failed after" in line]
    assert "nonsense" in failed and any("/3] good: " in line for line in said)
