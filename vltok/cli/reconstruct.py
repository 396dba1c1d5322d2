"""`vltok reconstruct`: pictures through a tokenizer and back, with a map of where the codes went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from vltok.cli.options import DEVICE, TRUST, keywords
from vltok.errors import UserError, one_line
from vltok.io.recipes import parse_options

if TYPE_CHECKING:
    from vltok.verbs.reconstruct import Reconstruction

_DESCRIPTION = """\
Encode and decode pictures of any size. For each, the folder receives NAME.png, the reconstruction, and NAME.coding.png,
the picture tinted by the granularity of each region, from blue (few codes) to red (many); metrics.json holds the
figures, and whether the codes went where they help, measured on crops of all pictures together. NAME is the picture's
name without its ending, with a number where two pictures share it.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok reconstruct` with what follows the verb.

    Raises:
        UserError: An argument is wrong, or some pictures could not be reconstructed; the others then are.
    """
    options = parse_options(_parser(), arguments)
    from vltok.evaluation.adaptation import adaptation_line
    from vltok.verbs.reconstruct import reconstruct

    found = reconstruct(pictures=options.images, **keywords(options, "images"), progress=_print)
    count = len(found.record.images)
    if found.failed:
        paths = ", ".join(f"'{source}'" for source in found.failed)
        failed = len(found.failed)
        raise UserError(f"{failed} of {failed + count} pictures could not be reconstructed: {paths}")
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


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok reconstruct", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument(
        "images", nargs="+", type=str, help="pictures, folders of pictures, or quoted patterns such as 'a/**/*.jpg'"
    )
    parser.add_argument(
        "--tokenizer", type=str, required=True, help="the bundle of a tokenizer, as 'vltok fit' writes it"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the results")
    parser.add_argument(
        "--tile",
        type=int,
        default=1024,
        help="a picture with a longer side, in pixels, is coded in tiles of about equal size, each as a picture of its "
        "own; bounds the memory",
    )
    parser.add_argument("--device", type=str | None, help=DEVICE)
    return parser
