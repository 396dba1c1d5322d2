"""What `vltok evaluate` is asked for: read from options, checked, and written down. Builds nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from vltok.drawing.config import SamplingConfig, every_option
from vltok.errors import UserError, check_seed, whole_number
from vltok.io.recipes import instantiate, parse, recipe_parser
from vltok.launchers import part_of
from vltok.rates import Rate
from vltok.verbs.options import (
    add_options,
    check_apart_from_pictures,
    description,
    sampling_options,
    with_bundle_path,
    with_default_data,
)

if TYPE_CHECKING:
    from vltok.evaluation.records import RecordKind

_SWITCHES = ("lpips", "probe_prior", "perturb_codes", "compile")
_BUNDLES = ("--tokenizer", "--prior", "--fixed")
#: The default of `evaluate`.
_COUNT = 1000


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """The options of an evaluation.

    Attributes:
        parser: The parser that read them.
        values: What it read.
    """

    parser: ArgumentParser
    values: Namespace

    @classmethod
    def of_arguments(cls, arguments: list[str]) -> EvaluationOptions:
        """Those of a command line.

        Raises:
            UserError: An option is wrong, or two do not go together.
        """
        arguments = with_default_data(with_bundle_path(arguments, _BUNDLES))
        parser = recipe_parser("vltok evaluate", description("evaluate"))
        parser.add_argument("--config", action="config", help="a YAML file with any of these options")
        add_options(parser, "evaluate", required=["out"], valued=_SWITCHES, arguments=arguments)
        parser.add_class_arguments(every_option(sampling_options(arguments)), "sampling")
        options = parse(parser, arguments)
        check_evaluation(vars(options))
        check_apart_from_pictures(options)
        return cls(parser, options)

    def text(self) -> str:
        """Every option, with its default, as YAML: the `config.yaml` of the evaluation."""
        values = self.values.clone()
        for option in ("config", "trust", "part"):  # a file that is handed on gives nobody's word
            values.pop(option, None)
        return self.parser.dump(values, skip_unset=False)

    def build(self) -> dict[str, Any]:
        """The arguments of `vltok.evaluate`.

        Raises:
            UserError: The pictures or the options of drawing refuse what they were given.
        """
        built = vars(instantiate(self.parser, self.values))
        return {name: value for name, value in built.items() if name != "config"}


def check_evaluation(given: Mapping[str, Any]) -> RecordKind:
    """See that the arguments of `vltok.evaluate` go together; nothing is read or built.

    Args:
        given: All of them, by name.

    Returns:
        What is measured.

    Raises:
        UserError: They do not.
    """
    kind: RecordKind = "prior" if given["prior"] is not None else "codec" if given["codec"] is not None else "tokenizer"
    both = given["codec"] is not None and (given["prior"] is not None or given["tokenizer"] is not None)
    if both or (kind == "tokenizer" and given["tokenizer"] is None):
        raise UserError("say what is measured: one of --tokenizer BUNDLE, --prior BUNDLE or --codec jpeg --quality 50")
    rate = given["bits_per_pixel"]
    if (given["quality"] is not None) + (rate is not None) != (kind == "codec"):
        raise UserError(
            "--codec takes one of --quality and --bits-per-pixel, and nothing else does: --codec jpeg --quality 50"
        )
    if rate is not None and not rate > 0:
        raise UserError(f"--bits-per-pixel must be positive, not {rate:g}")
    if given["part"] is not None:
        part_of(given["part"])
        if given["out"] is None:
            raise UserError(f"--part {given['part']}: parts are put together in a folder: say which with --out")
        if rate is not None:
            raise UserError(
                f"--part {given['part']}: --bits-per-pixel tries qualities on all pictures: give the --quality that "
                "'vltok evaluate' finds on some of them"
            )
    if given["fixed"] is not None and kind != "tokenizer":
        raise UserError("--fixed is compared with a tokenizer's coding maps: it belongs to --tokenizer")
    if given["rate"] is not None:
        Rate.of(given["rate"])
        if kind != "tokenizer":
            raise UserError("--rate says how many codes a tokenizer gives pictures: it belongs to --tokenizer")
    for name in ("probe_prior", "perturb_codes"):
        if given[name] and kind != "tokenizer":
            raise UserError(f"--{name.replace('_', '-')} tells of a tokenizer's codes: it belongs to --tokenizer")
    if given["probe_prior"] and given["split"] != "val":
        raise UserError(
            f"--probe-prior measures codes that its prior has not seen, and trains on the training pictures: with "
            f"--split {given['split']} they would be the same; leave --split out"
        )
    if kind == "prior" and given["lpips"]:
        raise UserError("--lpips compares reconstructions with pictures: it belongs to --tokenizer or --codec")
    if kind == "codec" and given["compile"]:
        raise UserError("--compile is for a tokenizer's networks: it belongs to --tokenizer or --prior")
    if kind != "prior":
        # an evaluation's config.yaml names every option, so that defaults are no sign that one was given
        drawing = ["--count"] if given["count"] != _COUNT else []
        drawing += [
            f"--sampling.{field.name}"
            for field in dataclasses.fields(SamplingConfig)
            if getattr(given["sampling"], field.name, field.default) != field.default
        ]
        if drawing:
            says = "says" if len(drawing) == 1 else "say"
            raise UserError(f"{' and '.join(drawing)} {says} how a prior draws: that belongs to --prior")
    for option, least in {"count": 1, "batch_size": 1, "examples": 0}.items():
        if given[option] is not None:
            whole_number(f"--{option.replace('_', '-')}", given[option], least)
    check_seed("--seed", given["seed"])
    return kind
