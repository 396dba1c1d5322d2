"""`vltok ablate`: trains every row of a table of ablations with several seeds: see `vltok.verbs.ablating`."""

from __future__ import annotations

import argparse
from functools import partial

from vltok.errors import UserError
from vltok.verbs.ablating import ablate

_DESCRIPTION = """\
Train every row of a table with every seed, each in a process of its own, and write the table of what they measured.
TABLE_DIR holds table.yaml and a recipe for each row, laid over the base recipe that table.yaml names. Where table.yaml
has options of 'vltok evaluate', every run is evaluated with them, and once more at each of its rates. What has been
trained or evaluated is not repeated, and what was stopped goes on. Options that are not listed here are those of
'vltok fit' and count for every run. Of a table.json that was written before, table, plots and report are made again.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok ablate` with what follows the verb.

    Raises:
        UserError: The table, a row or an option is wrong, a folder holds another run, or runs have failed; the others
            are in the table.
    """
    parser = _parser()
    if arguments[:1] in (["--help"], ["-h"]):
        parser.print_help()
        return
    if not arguments or arguments[0].startswith("-"):
        raise UserError("the first argument is the table: vltok ablate recipes/ablations/table6 --out runs/table6")
    options, overrides = parser.parse_known_args(arguments[1:])
    if not options.out:
        raise UserError("name the folder that receives the runs and the table, with --out DIR")
    outcome = ablate(
        arguments[0],
        options.out,
        seeds=options.seeds,
        rates=options.rates,
        jobs=options.jobs,
        overrides=overrides,
        progress=partial(print, flush=True),
        signals=("SIGINT", "SIGTERM"),
    )
    *written, report = outcome.files
    print(f"\n{outcome.results.markdown()}\nwritten: {', '.join(map(str, written))}; everything at one look:\n{report}")
    if outcome.failures:
        failed = f"{len(outcome.failures)} of {outcome.runs} runs failed: {'; '.join(outcome.failures)}"
        raise UserError(f"{failed}; their .log files say why")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vltok ablate",
        usage="vltok ablate TABLE_DIR --out DIR [--seeds S ...] [--rates R ...] [--jobs J] [options of 'vltok fit']",
        description=_DESCRIPTION,
        allow_abbrev=False,
        exit_on_error=False,
        add_help=False,
    )
    parser.add_argument("--out", metavar="DIR", help="the folder that receives the runs, the table and its report")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="by default 0 1 2")
    rates = "such as mean-codes=120, instead of those of table.yaml; see 'vltok evaluate --rate'"
    parser.add_argument("--rates", nargs="+", metavar="R", help=rates)
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at a time, which share the cores")
    return parser
