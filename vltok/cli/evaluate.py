"""`vltok evaluate`: the command line of `vltok.evaluate`, which says what its folder holds.

Besides, the folder gets config.yaml with every option: 'vltok evaluate --config' repeats the evaluation.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from vltok.cli.options import DEVICE, TRUST, add_data, with_bundle_path, with_default_data
from vltok.cli.progress import shown
from vltok.errors import UserError
from vltok.files import check_folder, written_whole
from vltok.launchers import find_rank

if TYPE_CHECKING:
    from vltok.evaluation.evaluations import Evaluation

_DESCRIPTION = """\
Measure a tokenizer or a codec on held-out pictures, or a prior on their codes and on what it draws. Every figure
carries its protocol. Distances between sets of images need a feature network, which has to be named. Under torchrun,
each process takes its part.
"""
_BUNDLES = ("--tokenizer", "--prior", "--fixed")


def run(arguments: list[str]) -> None:
    """Run `vltok evaluate` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures or weights are not to be had, or nothing can be written.
    """
    options = evaluate_options(arguments)
    # importing torch takes seconds, and `vltok --help` imports the verbs' names alone
    from vltok.io.recipes import instantiate
    from vltok.verbs.evaluate import evaluate

    given = vars(instantiate(options.parser, options.values))
    del given["config"]
    with shown("evaluate") as progress:
        evaluation = evaluate(**given, progress=progress)
    if find_rank(os.environ)[0] == 0:
        config = Path(given["out"], "config.yaml")
        with written_whole(config) as path:
            path.write_text(options.text(), encoding="utf-8")
        _print(evaluation, [*evaluation.files[:-1], config], given["features"] is None)


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of an evaluation.

    Attributes:
        parser: The parser that read them.
        values: What it read.
    """

    parser: ArgumentParser
    values: Namespace

    def text(self) -> str:
        """Every option, with its default, as YAML: the `config.yaml` of the evaluation."""
        values = self.values.clone()
        for option in ("config", "trust"):  # a file that is handed on gives nobody's word
            values.pop(option, None)
        return self.parser.dump(values, skip_unset=False)


def evaluate_options(arguments: list[str]) -> EvaluateOptions:
    """Read and check what follows the verb; builds nothing.

    Raises:
        UserError: An option is wrong, or two do not go together.
    """
    from vltok.io.recipes import parse

    parser = _parser(arguments)
    options = parse(parser, with_default_data(with_bundle_path(arguments, _BUNDLES)))
    from vltok.verbs.evaluate import CHECKED, check_evaluation

    check_evaluation(**{name: options[name] for name in CHECKED})
    out = check_folder("--out", options.out).resolve()
    for name in ("root", "val_root"):
        root = options.data.init_args.get(name)
        if isinstance(root, str) and out.is_relative_to(Path(root).resolve()):
            raise UserError(f"--out '{options.out}' lies in data.{name} '{root}', whose pictures it would join")
    return EvaluateOptions(parser, options)


def _print(evaluation: Evaluation, written: list[Path], unnamed: bool) -> None:
    record = evaluation.record
    if "asked_bits_per_pixel" in record.subject:
        asked = record.subject["asked_bits_per_pixel"]
        print(f"{record.name}: the quality whose rate comes nearest to {asked:g} bits per pixel without exceeding it")
    width = max(map(len, record.values))
    for name, value in record.values.items():
        print(f"  {name:<{width}}  {value.shown()}")
    images = evaluation.measurement.images
    print(f"measured on {images} pictures; written: {', '.join(map(str, written))}; everything at one look:")
    if unnamed:
        print(
            "the distance between the sets of images was not measured: name a network for it with --features",
            file=sys.stderr,
        )
    print(evaluation.files[-1])


def _parser(arguments: list[str]) -> ArgumentParser:
    from vltok.drawing.config import SamplingConfig
    from vltok.io.recipes import recipe_parser

    parser = recipe_parser("vltok evaluate", _DESCRIPTION)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument(
        "--tokenizer", type=str | None, help="a tokenizer's bundle; with --prior, where the tokenizer of its codes is"
    )
    parser.add_argument("--prior", type=str | None, help="a prior's bundle")
    parser.add_argument(
        "--fixed",
        type=str | None,
        help="the bundle of a tokenizer of fixed length, whose error map is compared with the coding map; by default "
        "the measured one itself, with its coarsest granularity everywhere",
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--codec", type=Literal["jpeg", "webp"] | None, help="a codec that everybody knows")
    parser.add_argument("--quality", type=int | None, help="the codec's, from 1 to 95 (jpeg) or 100 (webp)")
    parser.add_argument(
        "--bits-per-pixel",
        type=float | None,
        help="instead of a quality: takes that whose mean rate over the pictures is the nearest not above it",
    )
    add_data(parser, arguments)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives the figures")
    parser.add_argument(
        "--split", type=Literal["all", "train", "val"], default="val", help="which pictures; val are held out"
    )
    parser.add_argument(
        "--features",
        type=str | None,
        help="the network that tells sets of images apart: inception (FID), efficientnet-lite0, timm:NAME, random:NAME",
    )
    parser.add_argument(
        "--lpips", type=bool, default=False, help="whether to measure LPIPS, which needs VGG16's weights"
    )
    parser.add_argument("--count", type=int, default=1000, help="how many pictures a prior draws")
    parser.add_class_arguments(SamplingConfig, "sampling")
    parser.add_argument("--seed", type=int, default=0, help="sets what is drawn, and the resamples of intervals")
    parser.add_argument("--batch-size", type=int | None, help="pictures at the same time; by default the data's")
    parser.add_argument("--examples", type=int, default=16, help="how many pictures the report shows")
    parser.add_argument("--device", type=str | None, help=DEVICE)
    return parser
