"""Arguments of Lightning's trainer that cannot mean what they say, refused before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, EarlyStopping, LearningRateFinder, ModelCheckpoint

from vltok.errors import UserError, unknown

#: The least value of what counts something; of most Lightning would say nothing, or divide by it.
_LEAST = {"val_check_interval": 0, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 0}
_LEAST |= {"gradient_clip_val": 0, "limit_train_batches": 0, "num_nodes": 1, "min_steps": 0, "min_epochs": 0}
_TIME = re.compile(r"\d+:\d{1,2}:\d{1,2}:\d{1,2}")


def check_options(options: Mapping[str, Any]) -> None:
    """See that a trainer's arguments can be meant.

    Raises:
        UserError: One of them cannot: names it, and what to write.
    """
    for key, least in _LEAST.items():
        value = options[key]
        if isinstance(value, int | float) and value < least:
            raise UserError(f"trainer.{key} must be at least {least}, not {value}")
    for unit in ("steps", "epochs"):
        most, fewest = options[f"max_{unit}"], options[f"min_{unit}"]
        if fewest is not None and most is not None and 0 <= most < fewest:
            raise UserError(f"trainer.min_{unit} is {fewest}, but trainer.max_{unit} is {most}: give no less than that")
    for key, instead in {
        "limit_train_batches": "nothing would be trained",
        "max_steps": "nothing would be trained",
        "log_every_n_steps": "no figure would be logged, metrics.csv would be empty; give 1 or more",
        "max_epochs": "nothing would be trained",
        "val_check_interval": "to validate never, set trainer.limit_val_batches to 0",
    }.items():
        if options[key] == 0 and options[key] is not False:
            raise UserError(f"trainer.{key} is 0: {instead}")
    if options["barebones"]:
        raise UserError("trainer.barebones is true, so that nothing would be logged or saved: leave it out")
    if options["gradient_clip_algorithm"] is not None and not options["gradient_clip_val"]:
        raise UserError(
            f"trainer.gradient_clip_algorithm is {options['gradient_clip_algorithm']}, but no gradient is clipped: "
            "give trainer.gradient_clip_val, such as 1.0"
        )
    _check_time(options["max_time"])
    for callback in options["callbacks"]:
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            setting = "data.batch_size" if isinstance(callback, BatchSizeFinder) else "model.learning_rate"
            raise UserError(
                f"trainer.callbacks has {type(callback).__name__}, which trains before parts are calibrated and "
                f"leaves traces in the model: try {setting} in short runs instead"
            )


def _check_time(given: object) -> None:
    if not isinstance(given, str):
        return
    if not _TIME.fullmatch(given):
        hint = f"; {given} of hours would be 00:{given}" if re.fullmatch(r"\d{1,2}:\d{1,2}:\d{1,2}", given) else ""
        raise UserError(
            f"trainer.max_time must be days:hours:minutes:seconds, such as 00:12:00:00, not '{given}'{hint}"
        )
    if not any(map(int, given.split(":"))):
        raise UserError(f"trainer.max_time is {given}: nothing would be trained")


class FirstBatches:
    """The first batches of a loader, the same in every epoch: what `trainer.overfit_batches` asks for.

    Args:
        batches: The loader, of which one epoch is read.
        limit: How many of them, or which share.
    """

    def __init__(self, batches: Any, limit: int | float) -> None:
        self._batches = batches
        whole = len(batches)
        count = max(int(whole * limit), 1) if isinstance(limit, float) else limit
        self._count = min(count, whole)
        self._kept: list[Any] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        if not self._kept:
            self._kept = [batch for batch, _ in zip(self._batches, range(self._count), strict=False)]
        return iter(self._kept)


def keep_first_batches(data: LightningDataModule, limit: int | float) -> None:
    """Let a source of data give its first training batches alone, and the same in every epoch.

    Raises:
        UserError: The limit is no number of batches, and no share.
    """
    if limit < 0 or (isinstance(limit, float) and limit > 1):
        raise UserError(f"trainer.overfit_batches must be a whole number, or a share from 0 to 1, not {limit}")
    whole = data.train_dataloader
    vars(data)["train_dataloader"] = lambda: FirstBatches(whole(), limit)


class Monitors(Callback):
    """Sees after the first step that what callbacks watch is measured, rather than after an epoch, or never.

    Where a figure of validation is watched, it is looked at when a validation has ended, and not in an epoch that had
    none.
    """

    def __init__(self) -> None:
        self._validated: set[str] = set()
        self._checked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at figures of validation where they are measured.

        Raises:
            UserError: They are watched, and nothing is validated.
        """
        for callback, figure in _watching(trainer.callbacks):
            if not figure.startswith("val_"):
                continue
            if trainer.limit_val_batches == 0:
                raise UserError(
                    f"trainer.callbacks: {type(callback).__name__} monitors {figure}, but "
                    "trainer.limit_val_batches is 0, so that nothing is validated"
                )
            if isinstance(callback, EarlyStopping):
                callback._check_on_train_epoch_end = False
            elif callback._save_on_train_epoch_end is None:
                callback._save_on_train_epoch_end = False

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what a validation measures."""
        self._validated = set(trainer.callback_metrics)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check, once.

        Raises:
            UserError: A figure is watched that nobody measures.
        """
        if self._checked:
            return
        self._checked = True
        measured = self._validated | set(trainer.callback_metrics) | {"epoch", "step"}
        for callback, figure in _watching(trainer.callbacks):
            unseen = figure.startswith("val_") and not self._validated  # there was no first validation
            if figure not in measured and not unseen:
                problem = unknown("figure", figure, sorted(measured))
                raise UserError(
                    f"trainer.callbacks: {type(callback).__name__} monitors what is not measured: {problem}"
                )


def _watching(callbacks: Sequence[Callback]) -> Iterator[tuple[EarlyStopping | ModelCheckpoint, str]]:
    """The callbacks that watch a figure, and which."""
    for callback in callbacks:
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor is not None:
            yield callback, callback.monitor
