"""`vltok reconstruct`: pictures through a tokenizer and back, with a map of where the codes went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vltok.cli.failures import require_all
from vltok.errors import one_line
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, verb_parser

if TYPE_CHECKING:
    from vltok.verbs.reconstruct import Reconstruction


def run(arguments: list[str]) -> None:
    """Run `vltok reconstruct` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some pictures could not be reconstructed; the others then are.
    """
    options = parse_options(verb_parser("reconstruct", "pictures", required=["out"]), arguments)
    from vltok.evaluation.adaptation import adaptation_line
    from vltok.verbs.reconstruct import reconstruct

    found = reconstruct(**keywords(options), progress=_print)
    count = len(found.record.images)
    require_all(found.failed, count, "pictures could not be reconstructed")
    if found.record.protocol["adaptation"] is not None:
        print(f"adaptation: {adaptation_line(found.record.values)}")
    mean = {name: value.value for name, value in found.record.values.items()}
    ratios = {name.removeprefix("ratio_"): share for name, share in mean.items() if name.startswith("ratio_")}
    print(f"mean of {count}: {_caption(mean['psnr'], mean['length'], ratios)}; written to {options.out}")


def _print(done: Reconstruction) -> None:
    figures = done.figures
    print(f"{one_line(done.name)}: {_caption(figures.psnr, figures.code_length, figures.ratios)}")


def _caption(psnr: float, length: int | float, ratios: dict[Any, float]) -> str:
    shares = ", ".join(f"factor {factor}: {share:.0%}" for factor, share in ratios.items())
    return f"{psnr:.2f} dB, {length:g} codes{f' ({shares})' if shares else ''}"
