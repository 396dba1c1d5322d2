"""`vltok.fit`: trains what a recipe describes, and leaves a run folder: see `vltok.verbs.run_folder`."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import distributed, nn

from vltok.errors import UserError, check_seed
from vltok.evaluation.records import Record
from vltok.files import alone_in, written_whole
from vltok.interfaces import Prior, Tokenizer
from vltok.io import yaml_text
from vltok.io.descriptions import Description
from vltok.io.recipes import dump
from vltok.paths import read_path
from vltok.processes import world
from vltok.training.checkpoints import heal_checkpoint, require_fitting
from vltok.training.clusters import own_processes
from vltok.training.failures import failing_together
from vltok.training.last_checkpoint import LastCheckpoint
from vltok.training.objective import Objective
from vltok.training.progress import StepSize
from vltok.training.stopping import StopSignals
from vltok.verbs.early_ends import TimeLeft, keeping, measuring, reason_of_end
from vltok.verbs.prior_report import report_prior
from vltok.verbs.resume_rules import resumed_recipe
from vltok.verbs.run_folder import RunFolder
from vltok.verbs.shortcomings import shortcomings
from vltok.verbs.starting import begin_with
from vltok.verbs.tokenizer_report import report_tokenizer
from vltok.verbs.trainers import build_trainer
from vltok.verbs.training_recipe import Training, TrainingRecipe

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
_Say = Callable[[str], None]


@dataclass(frozen=True)
class FitResult:
    """What a training has left.

    Attributes:
        folder: The run folder.
        bundle: The trained tokenizer or prior; None where the model is no `Objective` of vltok's.
        steps: Optimizer steps, those before it was resumed included.
        ended: Why: `max_steps`, `max_epochs` or `max_time` of the trainer, or `stopped` by a callback.
        record: What `metrics.json` holds; None in all processes but the first, and where `bundle` is None.
    """

    folder: Path
    bundle: Path | None
    steps: int
    ended: str
    record: Record | None


def fit(
    recipe: str | PathLike | Mapping[str, Any] | TrainingRecipe | None = None,
    *,
    out: str | PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    start: str | PathLike | None = None,
    trust: bool = False,
    progress: _Say | None = None,
    bar: bool = False,
    signals: Sequence[str] = ("SIGINT",),
) -> FitResult:
    """Train what a recipe describes, measure it, and write the run folder.

    ```
    run = vltok.fit("quickstart", out="runs/mine", overrides={"trainer.max_steps": 200}, progress=print)
    tokenizer = vltok.load_tokenizer(run.bundle)
    ```

    Args:
        recipe: The path of a recipe, the name of one that comes with vltok, or what such a file holds; to go on with a
            run, its own by default.
        out: The run folder; by default the recipe's, or `runs/NAME`.
        overrides: What is laid over the recipe: keys with dots, as options have them, or nested, as recipes do.
        resume: Go on with the run in the folder.
        overwrite: Replace the run in the folder, which comes back if the new one fails before its first checkpoint.
        start: The bundle with whose weights to begin, to fine-tune it: it is built as it was, but for `overrides`.
        trust: Let that bundle, and the one of the tokenizer whose codes are modelled, run any code that they name.
        progress: Is told what is done, line by line; `print` shows it.
        bar: Let Lightning draw a bar while it trains, instead of lines.
        signals: Where one of these comes, training stops after the step and saves. Ctrl-C alone by default.

    Raises:
        UserError: The recipe or the folder is wrong, or training fails: says how to go on.
        KeyboardInterrupt: A signal stopped the training, with a checkpoint of the last step; says how to go on.
    """
    if recipe is None:
        if out is None or not resume:
            raise UserError("give a recipe; a run alone, by out, is enough where resume goes on with it")
        recipe = RunFolder(read_path(out)).own_recipe()
    given = TrainingRecipe.of(recipe, overrides, None if resume else start, trust)
    config = given.config
    config.out = config.out if out is None else str(out)
    config.resume, config.overwrite = config.resume or resume, config.overwrite or overwrite
    config.trust = config.trust or trust
    check_seed("seed_everything", config.seed_everything)
    with own_processes(), _quiet():
        return _fit(given, progress, bar, StopSignals(signals))


def _fit(given: TrainingRecipe, progress: _Say | None, bar: bool, signals: StopSignals) -> FitResult:
    config, folder, say = given.config, given.run_folder(), progress or _silence
    leads = rank_zero_only.rank == 0
    with contextlib.ExitStack() as lock, signals as stop:
        begun = folder.begun
        if leads:
            if begun:
                lock.enter_context(alone_in(folder.path, _SECONDS_TO_WAIT))
            _check_folder(folder, config.resume, config.overwrite)
        text = given.text(folder)
        if config.resume:
            text = _resumed(text, folder)
        seed_everything(config.seed_everything, workers=True, verbose=False)
        training = given.build()
        model, data = training.model, training.data
        if config.start is not None and not config.resume:
            begin_with(model, config.start, config.trust, say if leads else _silence)
        if isinstance(model, Objective):
            model.check_data(data)
            # a model that no bundle can describe would be trained for nothing
            Description.of(model.trained, "prior" if isinstance(model.trained, Prior) else "tokenizer")

        def saved() -> None:
            folder.forget_replaced()
            if config.resume:  # a new length is the run's own once something has come of it
                _write_recipe(folder, text)

        last = LastCheckpoint(folder.last_checkpoint, stop, on_saved=saved)
        trainer = build_trainer(training, folder.path, last, progress, bar)
        trainer.callbacks += [TimeLeft(say), StepSize(say)]
        if not leads:
            torch.manual_seed(config.seed_everything + rank_zero_only.rank)  # equal weights, but noise of its own
        if leads:
            if config.resume:
                require_fitting(heal_checkpoint(folder.last_checkpoint), model, trainer)
            if not begun:
                lock.enter_context(alone_in(folder.path, _SECONDS_TO_WAIT))
            _say_sizes(model, say)
            if config.overwrite:
                folder.set_aside()
        with keeping(folder, trainer, last, config.resume):
            if leads and not config.resume:
                _write_recipe(folder, text)
            checkpoint = folder.last_checkpoint if config.resume else None
            # no pickle is loaded from a file
            with failing_together(trainer):
                trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        ended = reason_of_end(trainer)
        if ended == "max_time" and leads:
            say(
                f"trainer.max_time is spent, at step {trainer.global_step}: to train on, give a longer one, as in "
                f"'vltok fit --resume --out {folder.path} --trainer.max_time 00:01:00:00'"
            )
        resumable = folder.resumable  # without a checkpoint, the figures and the bundle are all that comes of it
        if leads and resumable:
            folder.forget_replaced()
        recipe, record = yaml_text.load(text), None
        kept = measuring(folder) if resumable else keeping(folder, trainer, last, config.resume)
        with kept, failing_together(trainer):
            if isinstance(model, Objective):
                record = _measured(model, training, trainer, recipe, folder, last.seconds, say, config.trust)
        if leads:
            folder.forget_replaced()
    bundle = folder.bundle if isinstance(model, Objective) else None
    return FitResult(folder.path, bundle, trainer.global_step, ended, record)


def _measured(
    objective: Objective,
    training: Training,
    trainer: Trainer,
    recipe: Mapping[str, Any],
    folder: RunFolder,
    seconds: float,
    say: _Say,
    trust: bool,
) -> Record | None:
    """Measure what was trained, and write it; the first process alone has the figures."""
    if isinstance(objective.trained, Prior):
        return report_prior(objective, training.data, trainer, recipe, folder, seconds, say, trust)
    if world()[1] > 1:  # each is on its own from here: the first one sees all held-out pictures
        distributed.barrier()
        distributed.destroy_process_group()
    if not trainer.is_global_zero:
        return None
    record = report_tokenizer(objective, training.data, trainer, recipe, folder, seconds, say)
    for shortcoming in shortcomings(record, objective.trained):
        warnings.warn(shortcoming, stacklevel=2)
    return record


def _silence(line: str) -> None:
    """Nobody is told."""


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
    own = yaml_text.load(TrainingRecipe.of(folder.config).text(folder))
    recipe = resumed_recipe(own, yaml_text.load(given))
    return text if recipe == own else dump({**recipe, "out": yaml_text.load(text)["out"]})


def _write_recipe(folder: RunFolder, text: str) -> None:
    if not folder.config.is_file() or folder.config.read_text(encoding="utf-8") != text:
        with written_whole(folder.config) as path:
            path.write_text(text, encoding="utf-8")


def _say_sizes(model: LightningModule, say: _Say) -> None:
    for name, part in model.named_children():
        if isinstance(part, Tokenizer | Prior):
            others = " (without discriminator and perceptual network)" if isinstance(part, Tokenizer) else ""
            say(f"{name}: {_size(part)} parameters{others}")
            say("  " + ", ".join(f"{inner} {_size(child)}" for inner, child in part.named_children()))


def _size(module: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says to everyone at every start."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _HARMLESS:
            warnings.filterwarnings("ignore", message=message)
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
