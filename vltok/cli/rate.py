"""`vltok rate`: which rates a tokenizer can be asked for, and what pictures lose at each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vltok.cli.progress import shown
from vltok.errors import how_many, one_line
from vltok.io.recipes import parse, recipe_parser
from vltok.measures.meanings import meaning
from vltok.verbs.options import add_options, check_apart_from_pictures, description, keywords, with_default_data

if TYPE_CHECKING:
    from vltok.evaluation.rate_curves import RateCurve

_COLUMNS = ("length", "bits_per_pixel", "file_bits_per_pixel", "psnr", "ssim")


def run(arguments: list[str]) -> None:
    """Run `vltok rate` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures or the bundle are not to be had, or nothing can be written.
    """
    arguments = with_default_data(arguments)
    parser = recipe_parser("vltok rate", description("rate"))
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    add_options(parser, "rate", "tokenizer", arguments=arguments)
    options = parse(parser, arguments)
    if options.out is not None:
        check_apart_from_pictures(options)
    from vltok.verbs.rate import rate

    with shown("rate") as progress:
        found = rate(**keywords(options, "config"), progress=progress)
    if found.calibration is not None:
        low, high = (f"{share:.1%}" for share in (found.calibration.shares[0], found.calibration.shares[-1]))
        print(f"calibrated on {how_many(found.calibration.pictures, 'picture')}, for {low} to {high} of the most codes")
    _print(found.curve)
    print(one_line(f"means over {found.data.in_words()}"))
    for what, files in (("stored", found.stored), ("written", found.files)):
        if files:
            print(one_line(f"{what}: {', '.join(map(str, files))}"))


def _print(curve: RateCurve) -> None:
    told = [meaning(column) for column in _COLUMNS]
    rows = [(f"{point.asked['length']:.1f} codes", point.mean) for point in curve.points]
    rows.append(("own choice", curve.own.mean))
    for codec, points in curve.codecs.items():
        rows += [(f"{codec} {point.asked['quality']:g}", point.mean) for point in points]
    print("  ".join([f"{'asked for':>13}", *(means.title for means in told)]))
    for name, mean in rows:
        cells = [f"{name:>13}"]
        for column, means in zip(_COLUMNS, told, strict=True):
            cells.append(f"{format(mean[column], means.form) if column in mean else '–':>{len(means.title)}}")
        print("  ".join(cells))
    if curve.missing:
        print(f"not measured, for Pillow does not write them here: {', '.join(curve.missing)}")
