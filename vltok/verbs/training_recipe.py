"""What a recipe of a training says: parsed, written in full, and built."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from vltok.arguments import fields_of
from vltok.errors import UserError
from vltok.interfaces import Prior
from vltok.io.bundles import configuration
from vltok.io.recipe_files import BASE, find_recipe
from vltok.io.recipe_names import Place, RecipeNames
from vltok.io.recipes import RecipeParser, instantiate, parse, parse_layers, parse_resolved, recipe_parser
from vltok.paths import new_path
from vltok.sequences.source import CodeSource
from vltok.training.suitability import code_source
from vltok.verbs.run_folder import OPTIONS, RunFolder

#: Where loggers write, in recipes; a run folder that is moved has its logs with it.
_LOGS = "{out}/logs"


@dataclass(frozen=True)
class Training:
    """What a recipe of a training describes, built.

    Attributes:
        model: What is trained, and how: its `tokenizer` or `prior` is the part that becomes a bundle.
        data: What it is trained on.
        trainer: The arguments of Lightning's trainer, of which callbacks, loggers and plugins are built.
    """

    model: LightningModule
    data: LightningDataModule
    trainer: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingRecipe:
    """A recipe of a training, in which every key has been checked and nothing is built yet.

    Attributes:
        parser: Which has parsed it.
        config: Every key with its value.
    """

    parser: ArgumentParser
    config: Namespace

    @classmethod
    def of(
        cls,
        recipe: str | PathLike | Mapping[str, Any] | TrainingRecipe,
        overrides: Mapping[str, Any] | None = None,
        start: str | PathLike | None = None,
        trust: bool = False,
    ) -> TrainingRecipe:
        """The recipe of a file, of the name of one that comes with vltok, or of what such a file holds.

        Args:
            recipe: Which; one that has been read comes back as it is.
            overrides: What is laid over it: keys with dots, as options have them, or nested, as recipes do.
            start: The bundle with whose weights to begin: what it is built from is laid over the recipe first.
            trust: Whether that bundle may name more than registered components.

        Raises:
            UserError: There is none, or something in it is wrong.
        """
        if isinstance(recipe, TrainingRecipe):
            return recipe
        parser = fit_parser()
        first = recipe if isinstance(recipe, Mapping) else find_recipe(recipe)
        layers = [first, *([] if start is None else [_start(start, trust)]), *([overrides] if overrides else [])]
        return cls(parser, parse_layers(parser, layers, spec_of_codes))

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> TrainingRecipe:
        """That of a command line.

        Raises:
            UserError: Something in it is wrong.
        """
        parser, arguments = fit_parser(), list(arguments)
        options = [argument.partition("=")[0] for argument in arguments]
        if "--start" in options and "--resume" not in options:  # a run that goes on has its own weights
            place = options.index("--start")
            given = arguments[place].partition("=")[2] or "".join(arguments[place + 1 : place + 2])
            recipes = [at for at, option in enumerate(options) if option == "--config"]
            after = max((at + (2 if arguments[at] == "--config" else 1) for at in recipes), default=0)
            kind, tree = configuration(given, "--trust" in options)
            arguments.insert(after, f"--model.{kind}={json.dumps(tree)}")
        return cls(parser, parse(parser, arguments, spec_of_codes))

    def run_folder(self) -> RunFolder:
        """The folder that it names, or else the one that goes by its file's name.

        Raises:
            UserError: There is neither.
        """
        if self.config.out is not None:
            return RunFolder(new_path("--out", self.config.out))
        files = [path for path in self.config.config or () if path is not None and "\n" not in str(path)]
        if not files:
            raise UserError("name the run folder with --out DIR, or give a recipe with --config FILE")
        return RunFolder(Path("runs") / Path(str(files[-1])).stem)

    def text(self, folder: RunFolder) -> str:
        """The recipe with every default and override, as YAML: the `config.yaml` of a run folder."""
        kept = self.config.clone()
        kept.out = str(folder.path)
        for option in ("config", "resume", "overwrite", "trust"):
            kept.pop(option, None)
        return self.parser.dump(kept, skip_unset=False)

    def build(self) -> Training:
        """Build what it describes.

        Raises:
            UserError: A constructor refuses what it was given.
        """
        config = self.config.clone()
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if isinstance(logger, Namespace) and logger.get("init_args.save_dir") == _LOGS:
                logger.init_args.save_dir = str(self.run_folder().path / "logs")
        built = instantiate(self.parser, config)
        return Training(built.model, built.data, dict(vars(built.trainer)))


class _FitParser(RecipeParser):
    """A parser in which a logger writes into the run folder, unless it is told another place."""

    def add_class_arguments(self, component: type, *args: Any, skip: Iterable[str] | None = None, **kwargs: Any) -> Any:
        taken = set(skip or ())
        logs = inspect.isclass(component) and issubclass(component, Logger)
        if logs and "save_dir" in inspect.signature(component).parameters:
            self.add_argument("--save_dir", type=str, default=_LOGS, help="where it writes; {out} is the run folder")
            taken.add("save_dir")
        return super().add_class_arguments(component, *args, skip=taken, **kwargs)


def fit_parser() -> ArgumentParser:
    """The parser of `vltok fit`, which is what a recipe may hold."""
    parser = recipe_parser(
        "vltok fit", "Train what a recipe describes. Every key of a recipe is an option, too.", _FitParser
    )
    parser.add_argument("--config", action="config", help=OPTIONS["--config"])
    # a key of recipe files alone: without a help text, no dump of the whole recipe has it
    parser.add_argument(f"--{BASE}", type=str | None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=str, help=OPTIONS["--out"])
    parser.add_argument("--start", type=str | None, help=OPTIONS["--start"])
    for option in ("--resume", "--overwrite", "--trust"):
        parser.add_argument(option, action="store_true", help=OPTIONS[option])
    parser.add_argument("--seed_everything", type=int, default=0, help=OPTIONS["--seed_everything"])
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    # no default: jsonargparse would carry its arguments, such as the number of workers, over to every other class
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip={"default_root_dir"})
    return parser


def _start(bundle: str | PathLike, trust: bool) -> dict[str, Any]:
    """What a recipe says of a training that begins with a bundle."""
    kind, tree = configuration(bundle, trust)
    return {"start": str(bundle), f"model.{kind}": tree}


def spec_of_codes(names: RecipeNames) -> Iterator[tuple[Place, Any]]:
    """What a prior models, where the recipe leaves it out: what the codes are that it is trained on.

    Raises:
        UserError: They are not to be had.
    """
    for place, component in list(names.classes.items()):
        models = inspect.isclass(component) and issubclass(component, Prior)
        # a prior of before 0.2 has arguments of its own for what a spec says
        spec_place = (*place, "spec") if names.takes((*place, "spec", "codebook_size")) else place
        lacking = [key for key in ("codebook_size", "factors", "regions") if names.lacks((*spec_place, key))]
        if models and lacking and not names.lacks(("data",)):
            spec = fields_of(_codes(names).training.facts.spec)
            wanted = {(*spec_place, key): value for key, value in spec.items() if value is not None}
            yield from ((target, value) for target, value in wanted.items() if names.lacks(target))


def _codes(names: RecipeNames) -> CodeSource:
    parser = recipe_parser("vltok fit")
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    return code_source(instantiate(parser, parse_resolved(parser, {"data": names.given(("data",))}, names.texts)).data)


def trainer_help() -> str:
    """What Lightning's trainer takes, as the options of `vltok fit`."""
    parser = recipe_parser("vltok fit")
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip={"default_root_dir"})
    return parser.format_help()
