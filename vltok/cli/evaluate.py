"""`vltok evaluate`: what a tokenizer, a prior or a codec achieves, with the protocol under which it was measured.

```
evaluated/
  metrics.json   the figures, their confidence intervals, and the protocol: 'vltok compare' reads it
  config.yaml    every option: 'vltok evaluate --config' repeats the evaluation
  images.csv     the figures of each picture (not of a prior)
  reconstructions.png  of a tokenizer: pictures, reconstructions, coding maps and error maps
  report.html    everything at one look, in any browser
  unfolding.gif  of a prior that tells its order: how its first picture unfolds, code by code
```
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from vltok.cli.options import TRUST, with_bundle_path, with_default_data
from vltok.errors import UserError, check_seed
from vltok.files import check_folder

_DESCRIPTION = """\
Measure a tokenizer or a codec on held-out pictures, or a prior on their codes and on what it draws. Every figure
carries its protocol. Distances between sets of images need a feature network, which has to be named. Under torchrun,
each process takes its part.
"""
_BUNDLES = ("--tokenizer", "--prior", "--fixed")
_COUNT = 1000


def run(arguments: list[str]) -> None:
    """Run `vltok evaluate` with what follows the verb.

    Raises:
        UserError: An argument is wrong, pictures or weights are not to be had, or nothing can be written.
    """
    options = evaluate_options(arguments)
    # importing torch takes seconds, and `vltok --help` imports the verbs' names alone
    from vltok.cli.evaluating import evaluate
    from vltok.io.recipes import instantiate

    evaluate(options.kind, instantiate(options.parser, options.values), options.text())


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of an evaluation.

    Attributes:
        kind: What is measured.
        parser: The parser that read them.
        values: What it read.
    """

    kind: Literal["tokenizer", "prior", "codec"]
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

    parser = _parser()
    options = parse(parser, with_default_data(with_bundle_path(arguments, _BUNDLES)))
    given = [name for name in ("prior", "codec") if options[name] is not None]
    if not given and options.tokenizer is not None:
        given = ["tokenizer"]
    if len(given) != 1 or (given == ["codec"] and options.tokenizer is not None):
        raise UserError("say what is measured: one of --tokenizer BUNDLE, --prior BUNDLE or --codec jpeg --quality 50")
    rates = [name for name in ("quality", "bits_per_pixel") if options[name] is not None]
    if len(rates) != (given == ["codec"]):
        raise UserError(
            "--codec takes one of --quality and --bits-per-pixel, and nothing else does: --codec jpeg --quality 50"
        )
    if options.bits_per_pixel is not None and not options.bits_per_pixel > 0:
        raise UserError(f"--bits-per-pixel must be positive, not {options.bits_per_pixel:g}")
    if options.fixed is not None and given != ["tokenizer"]:
        raise UserError("--fixed is compared with a tokenizer's coding maps: it belongs to --tokenizer")
    _refuse_ignored(given[0], options)
    for key in ("count", "batch_size"):
        if options[key] is not None and options[key] < 1:
            raise UserError(f"--{key.replace('_', '-')} must be at least 1, not {options[key]}")
    check_seed("--seed", options.seed)
    if options.examples < 0:
        raise UserError(f"--examples must be at least 0, not {options.examples}")
    out = check_folder("--out", options.out).resolve()
    for name in ("root", "val_root"):
        root = options.data.init_args.get(name)
        if isinstance(root, str) and out.is_relative_to(Path(root).resolve()):
            raise UserError(f"--out '{options.out}' lies in data.{name} '{root}', whose pictures it would join")
    return EvaluateOptions(given[0], parser, options)


def _refuse_ignored(kind: Literal["tokenizer", "prior", "codec"], options: Namespace) -> None:
    """See that no option is given that what is measured takes no notice of."""
    from vltok.interfaces import SamplingConfig

    if kind == "prior":
        if options.lpips:
            raise UserError("--lpips compares reconstructions with pictures: it belongs to --tokenizer or --codec")
        return
    # an evaluation's config.yaml names every option, so that defaults are no sign that one was given
    given = ["--count"] if options.count != _COUNT else []
    given += [
        f"--sampling.{field.name}"
        for field in dataclasses.fields(SamplingConfig)
        if options.sampling[field.name] != field.default
    ]
    if given:
        says = "says" if len(given) == 1 else "say"
        raise UserError(f"{' and '.join(given)} {says} how a prior draws: that belongs to --prior")


def _parser() -> ArgumentParser:
    from vltok.interfaces import SamplingConfig
    from vltok.io.recipes import recipe_parser
    from vltok.pictures.images import ImageData

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
    parser.add_subclass_arguments(
        ImageData,
        "data",
        required=True,
        help="the pictures, by default the embedded photographs; its batch_size and workers count here too",
    )
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
    parser.add_argument("--count", type=int, default=_COUNT, help="how many pictures a prior draws")
    parser.add_class_arguments(SamplingConfig, "sampling")
    parser.add_argument("--seed", type=int, default=0, help="sets what is drawn, and the resamples of intervals")
    parser.add_argument("--batch-size", type=int | None, help="pictures at the same time; by default the data's")
    parser.add_argument("--examples", type=int, default=16, help="how many pictures the report shows")
    parser.add_argument("--device", type=str | None, help="'cpu', 'cuda' or 'cuda:1'; a GPU where there is one")
    return parser
