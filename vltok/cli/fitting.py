"""What `vltok fit` does once torch is needed: parse, build, train, and measure."""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import distributed, nn

from vltok.cli.clusters import check_processes, cluster_plugins
from vltok.cli.fit import RunFolder
from vltok.cli.prior_report import check_codes, report_prior
from vltok.cli.tokenize import TRUST
from vltok.cli.tokenizer_report import report_tokenizer
from vltok.data.images import ImageData
from vltok.errors import UserError, check_seed
from vltok.files import written_whole
from vltok.interfaces import Prior, Tokenizer
from vltok.io.recipe_files import BASE
from vltok.io.recipes import instantiate, parse, recipe_parser
from vltok.processes import world
from vltok.training import PictureLogger, PlainProgress, PriorTraining, TokenizerTraining
from vltok.training.checkpoints import WholeCheckpoints, heal_checkpoint
from vltok.training.failures import failing_together
from vltok.training.finiteness import Diverged
from vltok.training.strategies import check_strategy

_CHECKPOINT_INTERVAL = timedelta(minutes=15)
#: Beginnings of warnings that are no news to the user.
_HARMLESS = (
    ".*does not have many workers",  # pictures are decoded in the main process unless the recipe asks for workers
    r"Checkpoint directory .* exists and is not empty",  # a run that is resumed
    "You have overridden `on_before_batch_transfer`",  # PriorTraining looks at labels there
    r"The number of training batches .* is smaller than the logging interval",
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own use of torch
)


def fit(arguments: Sequence[str]) -> None:
    """Train what the arguments describe, measure it, and write the run folder.

    Raises:
        UserError: Anything that is wrong with the arguments, or training diverges.
        KeyboardInterrupt: The user stopped the training; it says how to go on.
    """
    _quieten()
    parser = fit_parser()
    config = parse(parser, arguments)
    check_seed("seed_everything", config.seed_everything)
    folder = _run_folder(config)
    leads = rank_zero_only.rank == 0
    if leads:
        folder.check(config.resume, config.overwrite)
        if config.resume:
            heal_checkpoint(folder.last_checkpoint)
    seed_everything(config.seed_everything, workers=True, verbose=False)
    built = instantiate(parser, config)
    _check_data(built.model, built.data)
    trainer = _trainer(built.trainer, built.model, folder)
    text = resolved_recipe(parser, config, folder)
    if not leads:
        torch.manual_seed(config.seed_everything + rank_zero_only.rank)  # equal weights, but noise of its own
    if leads:
        _print_size(built.model)
        if config.overwrite:
            folder.set_aside()
        with written_whole(folder.config) as path:
            path.write_text(text, encoding="utf-8")
    with failing_together(trainer):
        seconds = _train(trainer, built.model, built.data, folder, config.resume)
        recipe = yaml.safe_load(text)
        if isinstance(built.model, PriorTraining):
            report_prior(built.model, built.data, trainer, recipe, folder, seconds, config.trust)
        if isinstance(built.model, TokenizerTraining):
            _part()
            if trainer.is_global_zero:
                report_tokenizer(built.model, built.data, trainer, recipe, folder, seconds)


def fit_parser() -> ArgumentParser:
    """The parser of `vltok fit`, which is what a recipe may hold."""
    parser = recipe_parser("vltok fit", "Train what a recipe describes. Every key of a recipe is an option, too.")
    parser.add_argument("--config", action="config", help="a recipe; options after it override what it says")
    # a key of recipe files alone: without a help text, no dump of the whole recipe has it
    parser.add_argument(f"--{BASE}", type=str | None, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=str | None, help="the run folder; runs/NAME of the recipe by default")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--seed_everything", type=int, default=0, help="sets the random numbers")
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    # no default: jsonargparse would carry its arguments, such as the number of workers, over to every other class
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, skip={"default_root_dir"})
    return parser


def resolved_recipe(parser: ArgumentParser, config: Namespace, folder: RunFolder) -> str:
    """The recipe with every default and override, as YAML: the `config.yaml` of a run folder."""
    kept = config.clone()
    kept.out = str(folder.path)
    for option in ("config", "resume", "overwrite", "trust"):
        kept.pop(option, None)
    return parser.dump(kept, skip_unset=False)


def _run_folder(config: Namespace) -> RunFolder:
    if config.out:
        return RunFolder(Path(config.out))
    if not config.config:
        raise UserError("name the run folder with --out DIR, or give a recipe with --config FILE")
    return RunFolder(Path("runs") / Path(str(config.config[-1])).stem)


def _check_data(model: LightningModule, data: LightningDataModule) -> None:
    if isinstance(model, PriorTraining):
        check_codes(model.prior, data)
    if not isinstance(model, TokenizerTraining):
        return
    if not isinstance(data, ImageData):
        raise UserError(f"data: a tokenizer is trained on images, which {type(data).__name__} does not give")
    divisor = model.tokenizer.divisor
    if not model.tokenizer.spec.gridded and data.size != divisor:
        raise UserError(f"data.size is {data.size}, but this tokenizer takes images of {divisor} × {divisor} only")
    if data.size % divisor:
        near = max(round(data.size / divisor), 1) * divisor
        raise UserError(
            f"data.size is {data.size}, but must be a multiple of {divisor}, the tokenizer's coarsest factor; "
            f"the nearest is {near}"
        )


def _trainer(given: Namespace, model: LightningModule, folder: RunFolder) -> Trainer:
    """Lightning's trainer as the recipe wants it, with the run folder's logs and checkpoints."""
    options = dict(vars(given))
    check_strategy(options["strategy"])
    if str(options["precision"]) in ("bf16-true", "16-true", "64-true", "64"):
        mixed = "16-mixed" if str(options["precision"]) == "16-true" else "bf16-mixed"
        raise UserError(
            f"trainer.precision is {options['precision']}, but codebooks and their averages need single precision: "
            f"give {mixed} or 32-true"
        )
    callbacks = options["callbacks"] or []
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    if options["enable_checkpointing"] is not False:
        callbacks += _checkpoints(folder)
    tokenizer = isinstance(model, TokenizerTraining)
    if tokenizer and not any(isinstance(callback, PictureLogger) for callback in callbacks):
        callbacks.append(PictureLogger())
    if not sys.stdout.isatty() and options["enable_progress_bar"] is not False:
        callbacks += [] if any(isinstance(callback, ProgressBar) for callback in callbacks) else [PlainProgress()]
    if options["logger"] in (None, True):
        options["logger"] = TensorBoardLogger(folder.path, name="logs", version="")
    if options["enable_model_summary"] is None:
        options["enable_model_summary"] = False
    plugins = options["plugins"] or []
    plugins = list(plugins) if isinstance(plugins, list) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeCheckpoints())
    plugins += cluster_plugins(plugins)
    own = {"callbacks": callbacks, "plugins": plugins, "default_root_dir": folder.path}
    try:
        trainer = Trainer(**{**options, **own})
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error
    check_processes(trainer)
    check_strategy(trainer.strategy)
    return trainer


def _checkpoints(folder: RunFolder) -> list[Callback]:
    """`last.ckpt` after each epoch, now and then within long ones, and when the user stops."""
    last = {"dirpath": folder.checkpoints, "filename": "last", "enable_version_counter": False}
    return [
        ModelCheckpoint(**last, every_n_epochs=1, save_on_train_epoch_end=True),
        ModelCheckpoint(**last, train_time_interval=_CHECKPOINT_INTERVAL),
        _SaveOnInterrupt(folder.last_checkpoint),
    ]


class _SaveOnInterrupt(Callback):
    """Saves when the user stops, but not when training fails: what failed is nothing to go on with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path)


def _part() -> None:
    """Each process is on its own from here: held-out pictures are no longer split, and the first one sees them all."""
    if world()[1] > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def _train(
    trainer: Trainer, model: LightningModule, data: LightningDataModule, folder: RunFolder, resume: bool
) -> float:
    """Train; the seconds that it took."""
    start = time.monotonic()
    checkpoint = folder.last_checkpoint if resume else None
    try:
        # no pickle is loaded from a file
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
        remedy = f"go on with 'vltok fit --resume --out {folder.path}'" if folder.last_checkpoint.is_file() else ""
        raise KeyboardInterrupt(f"no bundle was written; {remedy}".rstrip("; ")) from None
    except Exception as error:
        diverged = isinstance(error, Diverged)
        useless = not trainer.global_step or (diverged and not folder.last_checkpoint.is_file())
        if trainer.is_global_zero and not resume and (folder.replaced.exists() or useless):
            folder.restore()  # nothing of worth was made: the recipe can be corrected and given again
        if diverged and folder.last_checkpoint.is_file():
            raise type(error)(f"{error}; {_kept(folder)}") from error
        if isinstance(error, MisconfigurationException):
            raise UserError(f"trainer: {error}") from error
        raise
    if trainer.is_global_zero:
        folder.forget_replaced()
    return time.monotonic() - start


def _kept(folder: RunFolder) -> str:
    """What is left of a training that diverged, and what can be done with it."""
    return (
        f"{folder.last_checkpoint} is from before and stays: go on with 'vltok fit --resume --out {folder.path}', or "
        "start a corrected recipe with --overwrite"
    )


def _print_size(model: LightningModule) -> None:
    for name, part in model.named_children():
        if isinstance(part, Tokenizer | Prior):
            others = " (without discriminator and perceptual network)" if isinstance(part, Tokenizer) else ""
            print(f"{name}: {_size(part)} parameters{others}")
            print("  " + ", ".join(f"{inner} {_size(child)}" for inner, child in part.named_children()), flush=True)


def _size(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def _quieten() -> None:
    """Silence what Lightning says to everyone at every start."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in _HARMLESS:
        warnings.filterwarnings("ignore", message=message)
