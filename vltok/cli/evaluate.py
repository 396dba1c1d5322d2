"""`vltok evaluate`: the command line of `vltok.evaluate`, which says what its folder holds.

Besides, the folder gets config.yaml with every option: 'vltok evaluate --config' repeats the evaluation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vltok.cli.progress import name_of_share, say_done, shown
from vltok.errors import one_line
from vltok.files import written_whole
from vltok.launchers import find_rank
from vltok.verbs.evaluation_options import EvaluationOptions

if TYPE_CHECKING:
    from vltok.evaluation.evaluations import Evaluation


def run(arguments: list[str]) -> None:
    """Run `vltok evaluate` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures or weights are not to be had, or nothing can be written.
    """
    options = EvaluationOptions.of_arguments(arguments)
    from vltok.verbs.evaluate import evaluate

    given = options.build()
    mine = name_of_share(given["part"])
    with shown(", ".join(filter(None, ("evaluate", mine)))) as progress:
        evaluation = evaluate(**given, progress=progress)
    if find_rank(os.environ)[0] > 0:
        return
    if evaluation.missing:
        say_done(mine, evaluation.missing, "puts the figures together")
    elif not evaluation.new:
        print(f"{given['out']} holds these figures already: nothing is left to do")
        _print_values(evaluation)
    else:
        config = Path(given["out"], "config.yaml")
        with written_whole(config) as path:
            path.write_text(options.text(), encoding="utf-8")
        _print(evaluation, [*evaluation.files[:-1], config], given["features"] is None)


def _print(evaluation: Evaluation, written: list[Path], unnamed: bool) -> None:
    record = evaluation.record
    if "asked_bits_per_pixel" in record.subject:
        asked = record.subject["asked_bits_per_pixel"]
        print(f"{record.name}: the quality whose rate comes nearest to {asked:g} bits per pixel without exceeding it")
    _print_values(evaluation)
    print(f"written: {', '.join(map(str, written))}; everything at one look:")
    if unnamed:
        print(
            "the distance between the sets of images was not measured: name a network for it with --features",
            file=sys.stderr,
        )
    print(evaluation.files[-1])


def _print_values(evaluation: Evaluation) -> None:
    from vltok.evaluation.data_used import DataUsed
    from vltok.evaluation.values import value_lines

    print("\n".join(value_lines(evaluation.record.values)))
    print(one_line(f"measured on {DataUsed.of(evaluation.record).in_words()}"))
