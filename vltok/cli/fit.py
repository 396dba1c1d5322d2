"""`vltok fit`: trains what a recipe describes, and leaves a run folder: see `vltok.verbs.run_folder`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vltok.errors import UserError
from vltok.io.recipes import translate_arguments
from vltok.registry import KINDS
from vltok.verbs.run_folder import OPTIONS, RunFolder

_EXAMPLE = "vltok fit --config recipes/quickstart.yaml"
_DESCRIPTION = f"""\
Train what a recipe describes: '{_EXAMPLE}'. Every key of it is an option, too:
--data.batch_size 16, --model.tokenizer.quantizer.size 1024, --trainer.max_steps 1000, --data folder.
"""
_EPILOG = """\
'vltok plugins' lists what may stand in a recipe; '--data.help folder' and '--model.tokenizer.gate.help gain' show what
one takes, '--help trainer' what Lightning's trainer does. 'vltok recipes' lists the recipes that come with vltok.
"""
#: Options that show, rather than keep, something.
_SHOWN = {"--print_config": "show the whole recipe, with every default and override, and stop"}


def run(arguments: list[str]) -> None:
    """Train what a recipe describes.

    Raises:
        UserError: The recipe or the run folder is wrong, or training diverges.
    """
    if not arguments:
        raise UserError(f"give a recipe, as in: {_EXAMPLE}")
    if arguments[0] in ("--help", "-h"):
        print(_help(arguments[1:]))
        return
    if component := _component_asked_about(arguments):
        from vltok.cli import plugins

        plugins.run(component)
        return
    arguments = with_resumed_config(arguments)
    translate_arguments(arguments)  # a recipe that cannot be read is told before torch is loaded
    from vltok.training.stopping import SIGNALS
    from vltok.verbs.fitting import fit
    from vltok.verbs.training_recipe import TrainingRecipe

    recipe = TrainingRecipe.of_arguments(arguments)
    fit(recipe, progress=partial(print, flush=True), bar=sys.stdout.isatty(), signals=SIGNALS)


def _help(about: Sequence[str]) -> str:
    if about:
        if list(about) != ["trainer"]:
            raise UserError(f"--help tells of vltok's own options, and of 'trainer'; it knows no '{' '.join(about)}'")
        from vltok.verbs.training_recipe import trainer_help

        return trainer_help()
    parser = argparse.ArgumentParser(
        prog="vltok fit",
        usage="vltok fit --config RECIPE [--out DIR] [--resume | --overwrite] [--KEY VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, meaning in {**OPTIONS, **_SHOWN}.items():
        values = {"--config": "RECIPE", "--out": "DIR", "--seed_everything": "N"}
        kept: dict[str, Any] = {"metavar": values[option]} if option in values else {"action": "store_true"}
        parser.add_argument(option, help=meaning, **kept)
    return parser.format_help()


def _component_asked_about(arguments: Sequence[str]) -> list[str]:
    """The kind and the registered name that ``--KEY.help NAME`` asks about; nothing where no name is given."""
    for option, name in map(_option, arguments, [*arguments[1:], ""]):
        keys = option.lstrip("-").split(".")
        if keys[-1] == "help" and len(keys) > 1 and name and "." not in name and not name.startswith("-"):
            return [*(keys[-2:-1] if keys[-2] in KINDS else []), name]
    return []


def with_resumed_config(arguments: Sequence[str]) -> list[str]:
    """The arguments, where a run is resumed by its folder alone with that folder's own recipe.

    Raises:
        UserError: The folder holds no run.
    """
    following = [*arguments[1:], ""]
    options = dict(_option(argument, after) for argument, after in zip(arguments, following, strict=False))
    if "--resume" not in options or "--out" not in options or "--config" in options:
        return list(arguments)
    return ["--config", str(RunFolder(Path(options["--out"])).own_recipe()), *arguments]


def _option(argument: str, following: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    return name, value if equals else following
