"""Lightning's trainer as a recipe wants it, with the logs and checkpoints of a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vltok.errors import UserError
from vltok.files import check_folder
from vltok.training import PlainProgress
from vltok.training.checkpoints import WholeCheckpoints
from vltok.training.clusters import check_processes, forget_machines
from vltok.training.curves import CurveLogger, CurvesOfShortRuns
from vltok.training.last_checkpoint import LastCheckpoint
from vltok.training.pictures import default_pictures
from vltok.training.sharding import FSDP2, FullySharded, check_sharding
from vltok.training.strategies import check_strategy
from vltok.training.trainer_options import Monitors, check_options, keep_first_batches
from vltok.verbs.training_recipe import Training


def build_trainer(
    training: Training, folder: Path, last: LastCheckpoint, progress: Callable[[str], None] | None, bar: bool
) -> Trainer:
    """Build it.

    Args:
        training: Whose trainer.
        folder: The run folder.
        last: Saves where the training stands.
        progress: Is told how far it is, line by line.
        bar: Whether Lightning draws a bar instead.

    Raises:
        UserError: An argument of the trainer is wrong, or one under which training would be another.
    """
    options = dict(training.trainer)
    check_strategy(options["strategy"])
    if str(options["precision"]) in ("bf16-true", "16-true", "64-true", "64"):
        mixed = "16-mixed" if str(options["precision"]) == "16-true" else "bf16-mixed"
        raise UserError(
            f"trainer.precision is {options['precision']}, but codebooks and their averages need single precision: "
            f"give {mixed} or 32-true"
        )
    callbacks = options["callbacks"] or []
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    options["callbacks"] = callbacks
    if options["strategy"] == FSDP2 or isinstance(options["strategy"], FullySharded):
        check_sharding(training.model, options["precision"], callbacks)
        options["strategy"] = FullySharded()
    check_options(options)
    if overfitted := options.pop("overfit_batches"):
        keep_first_batches(training.data, overfitted)
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            given = callback.dirpath
            callback.dirpath = str(folder / "checkpoints" if given is None else check_folder("dirpath", given))
    callbacks.append(Monitors())
    callbacks.append(CurvesOfShortRuns(given=options["log_every_n_steps"] is not None))
    if options["enable_checkpointing"] is not False:
        callbacks.append(last)
    callbacks += default_pictures(training.model, callbacks)
    shown = bar or any(isinstance(callback, ProgressBar) for callback in callbacks)
    if not shown and progress is not None and options["enable_progress_bar"] is not False:
        callbacks.append(PlainProgress(say=progress))
    elif not shown:
        options["enable_progress_bar"] = False
    loggers = options["logger"] or []
    if options["logger"] in (None, True):
        loggers = [TensorBoardLogger(folder, name="logs", version="")]
    loggers = [loggers] if isinstance(loggers, Logger) else list(loggers)
    if options["enable_model_summary"] is None:
        options["enable_model_summary"] = False
    plugins = options["plugins"] or []
    plugins = list(plugins) if isinstance(plugins, list) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeCheckpoints())
    if options["num_nodes"] == 1:
        forget_machines()
    own = {"callbacks": callbacks, "plugins": plugins, "default_root_dir": folder}
    own["logger"] = [*loggers, CurveLogger(folder)]
    try:
        trainer = Trainer(**{**options, **own})
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"trainer: {error}") from error
    check_processes(trainer)
    check_strategy(trainer.strategy)
    return trainer
