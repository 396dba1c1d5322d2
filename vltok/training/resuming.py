"""What Lightning needs to be told when a training goes on, so that it goes on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from lightning.pytorch import Trainer

from vltok.loading.position import Position
from vltok.processes import world
from vltok.training.random_state import RandomStates
from vltok.training.schedules import LearningRateSchedule

_SCHEDULE = "schedule"


class Resuming:
    """What a training keeps in its checkpoints besides what Lightning does, and how it goes on from there."""

    def __init__(self) -> None:
        self._random_states = RandomStates()
        self._schedule: LearningRateSchedule | None = None

    def save(self, checkpoint: dict[str, Any], schedule: LearningRateSchedule) -> None:
        """Keep the state of each process's random numbers, and the schedule; all processes must take part."""
        self._random_states.save(checkpoint)
        checkpoint[_SCHEDULE] = dataclasses.asdict(schedule)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the random numbers where training goes on."""
        self._random_states.load(checkpoint)
        self._schedule = LearningRateSchedule(**checkpoint[_SCHEDULE]) if _SCHEDULE in checkpoint else None

    def start(self, trainer: Trainer, schedule: LearningRateSchedule) -> LearningRateSchedule:
        """Set right what Lightning takes from a checkpoint; call it in `on_train_start`.

        Where another number of processes goes on, the epoch does so at the start of a step, as near before the image
        at which it was left as there is one; or it starts again, where the order of its images follows from their
        number. The learning rate goes on where it was in its schedule.

        Args:
            trainer: Whose loops.
            schedule: As these processes count its steps.

        Returns:
            The schedule that holds from here on.
        """
        loop, before, kept = trainer.fit_loop, self._random_states.processes, self._schedule
        self._random_states.start(loop.restarted_mid_epoch)
        others = before is not None and before != world()[1]
        if before is not None and others:
            _among_others(trainer, before)
        # one that went on among others before counts from there
        if kept is not None and (others or kept.ahead):
            schedule = schedule.after(kept, trainer.global_step)
        _go_on(trainer)
        return schedule


def _among_others(trainer: Trainer, before: int) -> None:
    """Let Lightning count the batches of an epoch as this number of processes does."""
    loop, position = trainer.fit_loop, getattr(trainer.train_dataloader, "sampler", None)
    how = ""
    if loop.restarted_mid_epoch:
        taken, again = 0, "starts again"
        if isinstance(position, Position):
            taken, again = position.align(trainer.accumulate_grad_batches), position.among_others or again
        current = loop.epoch_loop.batch_progress.current
        # a batch after which the checkpoint was saved is not completed yet
        left = current.processed - current.completed
        current.ready = current.started = current.processed = taken
        current.completed = taken - left
        how = f", and epoch {trainer.current_epoch} {again}"
    if trainer.is_global_zero:
        now = world()[1]
        warnings.warn(
            f"the run was trained by {before} process{'es' * (before > 1)} and goes on with {now}: a step has {now}/"
            f"{before} of its images{how}",
            stacklevel=2,
        )


def _go_on(trainer: Trainer) -> None:
    """Set right what Lightning takes from a checkpoint."""
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        # where trainer.max_steps is given, it would take one batch more in the epoch that is over
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False
    validation = loop.epoch_loop.val_loop
    batches = validation.batch_progress.total
    if validation.restarting and batches.completed < batches.processed:
        # saved after a batch of a validation, which is run again from its start; it would be left out
        batches.processed = batches.completed
        validation.update_restart_stage()


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows the training batch that has just ended.

    A checkpoint that is saved in between leaves the validation out when training goes on from it.
    """
    every, epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or every is None or every == float("inf"):
        return False
    if epochs is not None and (trainer.current_epoch + 1) % epochs:
        return False
    batches = trainer.fit_loop.total_batch_idx if epochs is None else trainer.fit_loop.batch_idx
    return (batches + 1) % every == 0
