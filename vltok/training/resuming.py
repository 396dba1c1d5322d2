"""What Lightning needs to be told when a training goes on, so that it goes on as if it had never stopped."""

from __future__ import annotations

from lightning.pytorch import Trainer


def go_on(trainer: Trainer) -> None:
    """Set right what Lightning takes from a checkpoint; call it in `on_train_start`."""
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
