"""When a training saves where it stands: after each epoch, now and then within long ones, and when it is to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from vltok.errors import SaidElsewhere, UserError
from vltok.training.resuming import validation_follows
from vltok.training.stopping import StopSignals
from vltok.version import __version__

_INTERVAL = timedelta(minutes=15)


class LastCheckpoint(Checkpoint):
    """Saves one checkpoint, again and again, where training can go on as if it had never stopped: between steps.

    All processes save and stop at the same step, whichever of them hears a signal. What fails is not saved: it is
    nothing to go on with.

    Args:
        path: The checkpoint.
        stop: The signals at which to save and stop.
        interval: How long to train without saving within an epoch.
        on_saved: Is called after each save in the first process.

    Attributes:
        begun: Whether training has begun, with all that a checkpoint held.
    """

    def __init__(
        self,
        path: Path,
        stop: StopSignals,
        interval: timedelta = _INTERVAL,
        on_saved: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.stop = stop
        self.interval = interval.total_seconds()
        self.on_saved = on_saved
        self.begun = False
        self._step = 0
        self._stepped = False
        self._saved_at = 0.0
        self._seconds_before = 0.0
        self._started_at: float | None = None

    @property
    def seconds(self) -> float:
        """How long training has taken, with what it took before it was resumed."""
        return self._seconds_before + (0.0 if self._started_at is None else time.monotonic() - self._started_at)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hear signals: Lightning has set handlers of its own, which talk to other processes amid their talks."""
        self.stop.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here there is something to save."""
        self.begun = True
        self._step = trainer.global_step
        self._saved_at = self._started_at = time.monotonic()
        self.stop.listen()
        self.stop.defer(True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, and stop if that is asked for, where a step is done and the epoch is not."""
        # gradients that wait for more batches are in no checkpoint
        self._stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not self._stepped or trainer.is_last_batch or validation_follows(trainer):
            return
        if self._any(trainer, self._due or self.stop.asked):
            stopping = self._any(trainer, self.stop.asked)
            self._save(trainer)
            if stopping:
                raise KeyboardInterrupt

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if that is asked for; this validation is run again when training goes on."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self._stepped:
            self._stop_if_asked(trainer, save=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is time, which is not done before a validation."""
        within = self._stepped and not trainer.is_last_batch and not trainer.sanity_checking
        if trainer.state.fn == TrainerFn.FITTING and within and self._any(trainer, self._due):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop if that is asked for."""
        self._save(trainer)
        self._stop_if_asked(trainer, save=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here nothing is left to save."""
        self.stop.defer(False)
        self._seconds_before, self._started_at = self.seconds, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self.on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say what the checkpoint is."""
        checkpoint["vltok"] = {"version": __version__, "processes": trainer.world_size}

    def state_dict(self) -> dict[str, Any]:
        """How long training has taken."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self._seconds_before = state_dict["seconds"]

    def _stop_if_asked(self, trainer: Trainer, save: bool) -> None:
        if self._any(trainer, self.stop.asked):
            if save:
                self._save(trainer)
            raise KeyboardInterrupt

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.interval

    def _any(self, trainer: Trainer, wish: bool) -> bool:
        """Whether any process wishes it."""
        return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:
            return
        failure = None
        with self.stop.held():  # a file that is being written is not cut
            try:
                trainer.save_checkpoint(self.path)
                if trainer.is_global_zero:
                    self.on_saved()
            except UserError as error:
                failure = error
                trainer.strategy.barrier()  # where the others wait, who do not write
            failed = self._any(trainer, failure is not None)
        self._saved_at = time.monotonic()
        if failed:
            raise SaidElsewhere("the checkpoint was not written") if failure is None else failure
