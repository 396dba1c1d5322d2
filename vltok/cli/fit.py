"""`vltok fit`: trains what a recipe describes, and leaves a run folder: see `vltok.verbs.run_folder`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vltok.errors import UserError
from vltok.io.recipes import translate_arguments
from vltok.verbs.run_folder import RunFolder


def run(arguments: list[str]) -> None:
    """Train what a recipe describes.

    Raises:
        UserError: The recipe or the run folder is wrong, or training diverges.
    """
    if not arguments:
        raise UserError("give a recipe, as in: vltok fit --config recipes/quickstart.yaml")
    arguments = with_resumed_config(arguments)
    translate_arguments(arguments)  # a misspelt name is found before torch is loaded
    from vltok.training.stopping import SIGNALS
    from vltok.verbs.fitting import fit
    from vltok.verbs.training_recipe import TrainingRecipe

    recipe = TrainingRecipe.of_arguments(arguments)
    fit(recipe, progress=partial(print, flush=True), bar=sys.stdout.isatty(), signals=SIGNALS)


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
