"""`vltok reconstruct`: pictures through a tokenizer and back, with a map of where the codes went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltok.cli.failures import require_all
from vltok.errors import one_line
from vltok.io.recipes import parse_options
from vltok.measures.meanings import meaning
from vltok.verbs.options import keywords, verb_parser

if TYPE_CHECKING:
    from vltok.verbs.reconstruct import Reconstruction


def run(arguments: list[str]) -> None:
    """Run `vltok reconstruct` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some pictures could not be reconstructed; the others then are.
    """
    options = parse_options(verb_parser("reconstruct", "pictures", required=["out"]), arguments)
    from vltok.evaluation.values import value_lines
    from vltok.verbs.reconstruct import reconstruct

    found = reconstruct(**keywords(options), progress=_print)
    count = len(found.record.images)
    require_all(found.failed, count, "pictures could not be reconstructed")
    lines = "\n".join(value_lines(found.record.values))
    print(f"mean of {count}, written to {options.out}:\n{lines}")


def _print(done: Reconstruction) -> None:
    figures = done.figures
    shares = ", ".join(f"factor {factor}: {share:.0%}" for factor, share in figures.ratios.items())
    length = f"{figures.code_length} codes{f' ({shares})' if shares else ''}"
    print(f"{one_line(done.name)}: {meaning('psnr').shown(figures.psnr)}, {length}")
