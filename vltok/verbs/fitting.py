"""What `vltok fit` does once torch is needed: parse, build, train, and measure."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import distributed, nn

from vltok.errors import UserError, check_seed
from vltok.files import alone_in, written_whole
from vltok.interfaces import Prior, Tokenizer
from vltok.io.recipes import dump
from vltok.pictures.images import ImageData
from vltok.processes import world
from vltok.training import PictureLogger, PlainProgress, PriorTraining, TokenizerTraining
from vltok.training.checkpoints import WholeCheckpoints, heal_checkpoint, require_fitting
from vltok.training.clusters import check_processes, cluster_plugins
from vltok.training.failures import failing_together
from vltok.training.last_checkpoint import LastCheckpoint
from vltok.training.stopping import StopSignals
from vltok.training.strategies import check_strategy
from vltok.verbs.early_ends import keeping, measuring
from vltok.verbs.prior_report import check_codes, report_prior
from vltok.verbs.resume_rules import resumed_recipe
from vltok.verbs.run_folder import RunFolder
from vltok.verbs.tokenizer_report import report_tokenizer
from vltok.verbs.training_recipe import TrainingRecipe

#: The workers of a process that was killed see that within so long; until then the folder is theirs.
_SECONDS_TO_WAIT = 8.0
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
        UserError: Anything that is wrong with the arguments, or training fails.
        KeyboardInterrupt: A signal stopped the training; it says how to go on.
    """
    _quieten()
    given = TrainingRecipe.of_arguments(arguments)
    config = given.config
    check_seed("seed_everything", config.seed_everything)
    folder = given.run_folder()
    leads = rank_zero_only.rank == 0
    with contextlib.ExitStack() as lock, StopSignals() as stop:
        begun = folder.begun
        if leads:
            if begun:
                lock.enter_context(alone_in(folder.path, _SECONDS_TO_WAIT))
            _check_folder(folder, config.resume, config.overwrite)
        text = given.text(folder)
        if config.resume:
            text = _resumed(text, folder)
        seed_everything(config.seed_everything, workers=True, verbose=False)
        built = given.build()
        _check_data(built.model, built.data)

        def saved() -> None:
            folder.forget_replaced()
            if config.resume:  # a new length is the run's own once something has come of it
                _write_recipe(folder, text)

        last = LastCheckpoint(folder.last_checkpoint, stop, on_saved=saved)
        trainer = _trainer(built.trainer, built.model, folder, last)
        if not leads:
            torch.manual_seed(config.seed_everything + rank_zero_only.rank)  # equal weights, but noise of its own
        if leads:
            if config.resume:
                require_fitting(heal_checkpoint(folder.last_checkpoint), built.model, trainer)
            if not begun:
                lock.enter_context(alone_in(folder.path, _SECONDS_TO_WAIT))
            _print_size(built.model)
            if config.overwrite:
                folder.set_aside()
        with keeping(folder, trainer, last, config.resume):
            if leads and not config.resume:
                _write_recipe(folder, text)
            checkpoint = folder.last_checkpoint if config.resume else None
            # no pickle is loaded from a file
            with failing_together(trainer):
                trainer.fit(built.model, datamodule=built.data, ckpt_path=checkpoint, weights_only=True)
        resumable = folder.resumable  # without a checkpoint, the figures and the bundle are all that comes of it
        if leads and resumable:
            folder.forget_replaced()
        recipe = yaml.safe_load(text)
        kept = measuring(folder) if resumable else keeping(folder, trainer, last, config.resume)
        with kept, failing_together(trainer):
            if isinstance(built.model, PriorTraining):
                report_prior(built.model, built.data, trainer, recipe, folder, last.seconds, config.trust)
            if isinstance(built.model, TokenizerTraining):
                _part()
                if trainer.is_global_zero:
                    report_tokenizer(built.model, built.data, trainer, recipe, folder, last.seconds)
        if leads:
            folder.forget_replaced()


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


def _trainer(given: Mapping[str, Any], model: LightningModule, folder: RunFolder, last: LastCheckpoint) -> Trainer:
    """Lightning's trainer as the recipe wants it, with the run folder's logs and checkpoints."""
    options = dict(given)
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
        callbacks.append(last)
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


def _check_folder(folder: RunFolder, resume: bool, overwrite: bool) -> None:
    """See that a run may start or go on; what a killed --overwrite left is put in order, if it is to be touched."""
    if (resume or overwrite) and folder.settle():
        warnings.warn(
            f"'{folder.path}' was being replaced when that was cut off: the run that was there is back", stacklevel=2
        )
    folder.check(resume, overwrite)


def _resumed(given: str, folder: RunFolder) -> str:
    """The `config.yaml` of a run that goes on.

    Raises:
        UserError: Something is given that would train something else.
    """
    text = folder.config.read_text(encoding="utf-8")
    own = yaml.safe_load(TrainingRecipe.of(folder.config).text(folder))
    recipe = resumed_recipe(own, yaml.safe_load(given))
    return text if recipe == own else dump({**recipe, "out": yaml.safe_load(text)["out"]})


def _write_recipe(folder: RunFolder, text: str) -> None:
    if not folder.config.is_file() or folder.config.read_text(encoding="utf-8") != text:
        with written_whole(folder.config) as path:
            path.write_text(text, encoding="utf-8")


def _part() -> None:
    """Each process is on its own from here: held-out pictures are no longer split, and the first one sees them all."""
    if world()[1] > 1:
        distributed.barrier()
        distributed.destroy_process_group()


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
