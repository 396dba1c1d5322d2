"""Generated rubbish, the same each time: one clear line, and nothing half written, changed or executed.

`python -m tests.rubbish --help` says how to look at one case, or to try others.
"""

from collections.abc import Callable, Iterator

import pytest

from .cases import Outcome, run_case
from .kinds import KINDS
from .sound import make_sound
from .warm import WarmProcess

SEED = 0
#: Of each kind.
QUICK, WHOLE = 3, 36

Run = Callable[[str, int], Outcome]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a case by its kind and number."""
    folder = tmp_path_factory.mktemp("rubbish")
    with WarmProcess() as warm:
        make_sound(folder / "sound", warm)
        yield lambda kind, number: run_case(
            warm, folder / "sound", folder / "case", kind, KINDS[kind], f"{SEED}/{number}"
        )


def test_some_rubbish_of_every_kind(run: Run) -> None:
    outcomes = [run(kind, number) for kind in KINDS for number in range(QUICK)]
    assert "\n".join(str(outcome) for outcome in outcomes if outcome.fault) == ""
    # what is wrong is found, and what is strange but right goes through
    assert any(outcome.code == 0 for outcome in outcomes) and any(outcome.code == 1 for outcome in outcomes)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_rubbish(kind: str, run: Run, record_property: Callable[[str, object], None]) -> None:
    outcomes = [run(kind, number) for number in range(WHOLE)]
    refused = sum(outcome.code != 0 for outcome in outcomes)
    record_property("fault", f"rubbish in {kind}")
    record_property("verb", "all")
    record_property("line", f"{len(outcomes)} cases, {refused} refused in one line each")
    assert "\n".join(str(outcome) for outcome in outcomes if outcome.fault) == ""
