"""`python -m tests.rubbish`: run generated cases and print those that vltok takes badly."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .cases import run_case
from .kinds import KINDS
from .sound import make_sound
from .warm import WarmProcess


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rubbish", description=__doc__)
    parser.add_argument("--seed", default="0", help="another seed makes other cases")
    parser.add_argument("--count", type=int, default=40, help="cases of each kind")
    parser.add_argument("--kind", nargs="+", default=list(KINDS), choices=KINDS, help="all kinds by default")
    parser.add_argument("--case", type=int, help="this one alone, with all that it says")
    parser.add_argument("--verbose", action="store_true", help="print what came of every case")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as scratch, WarmProcess() as warm:
        make_sound(Path(scratch, "sound"), warm)
        for kind in given.kind:
            start = time.monotonic()
            numbers = range(given.count) if given.case is None else [given.case]
            outcomes = [
                run_case(
                    warm, Path(scratch, "sound"), Path(scratch, "case"), kind, KINDS[kind], f"{given.seed}/{number}"
                )
                for number in numbers
            ]
            for outcome in outcomes:
                if outcome.fault or given.verbose or given.case is not None:
                    print(outcome, flush=True)
            wrong = sum(outcome.fault is not None for outcome in outcomes)
            refused = sum(outcome.code != 0 for outcome in outcomes)
            faults += wrong
            print(
                f"{kind}: {len(outcomes)} cases, {refused} refused, {wrong} faults, {time.monotonic() - start:.1f} s",
                flush=True,
            )
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
