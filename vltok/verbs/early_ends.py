"""Where a training ends early: what is kept of it, and what the user is told."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vltok.errors import SaidElsewhere, StoppedElsewhere, UserError
from vltok.training.finiteness import Diverged
from vltok.training.last_checkpoint import LastCheckpoint
from vltok.verbs.explanations import explanation
from vltok.verbs.run_folder import RunFolder


def reason_of_end(trainer: Trainer) -> str:
    """Why a training that did not fail has ended: `max_steps`, `max_epochs`, `max_time`, or `stopped` by a callback."""
    if 0 <= trainer.max_steps <= trainer.global_step:
        return "max_steps"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return "max_epochs"
    return "max_time" if any(left <= 0 for left in _times_left(trainer)) else "stopped"


class TimeLeft(Callback):
    """Says at the start how much of `trainer.max_time` is left to a training that goes on.

    Args:
        say: Is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clocks of the run count on from here."""
        if trainer.ckpt_path and trainer.is_global_zero:
            for left in _times_left(trainer):
                self._say(f"of trainer.max_time, {timedelta(seconds=max(int(left), 0))} is left")


def _times_left(trainer: Trainer) -> list[float]:
    """The seconds left to a training, by each of its clocks that has an end."""
    found = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]
    return [left for left in found if left is not None]


@contextlib.contextmanager
def keeping(folder: RunFolder, trainer: Trainer, last: LastCheckpoint, resume: bool) -> Iterator[None]:
    """Where training ends early, keep what is worth something, and say how to go on.

    A new run is kept once it has a checkpoint, and the one that it replaces comes back if it has none.

    Raises:
        UserError: Training failed.
        KeyboardInterrupt: A signal stopped it.
    """
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and trainer.interrupted)
        came_back = False
        if rank_zero_only.rank == 0:
            if stopped:
                _forget_others(trainer)
            came_back = not resume and folder.settle()
            if not resume and not came_back and not folder.resumable:
                folder.remove()  # nothing of worth was made: the recipe can be corrected and given again
        elif stopped:
            raise StoppedElsewhere from None
        remedy = f"go on with 'vltok fit --resume --out {folder.path}'" if folder.resumable else ""
        remedy = "the run that was there is back" if came_back else remedy
        if stopped:
            raise KeyboardInterrupt(f"no bundle was written; {remedy}".rstrip("; ")) from None
        if resume and not last.begun and isinstance(error, KeyError | ValueError):
            error = UserError(f"the training cannot go on from {folder.last_checkpoint}: {error}")
        if remedy and isinstance(error, Diverged):
            remedy = f"{remedy}, or start a corrected recipe with --overwrite"
        raise _explained(error, remedy) from error


def _forget_others(trainer: Trainer) -> None:
    """Of the processes that this one has started, which have stopped with it: Lightning would end it for that."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.procs.clear()


@contextlib.contextmanager
def measuring(folder: RunFolder) -> Iterator[None]:
    """Where measuring fails, say that the training is not lost.

    Raises:
        UserError: It failed.
        KeyboardInterrupt: A signal stopped it.
    """
    remedy = f"the training is done; measure it with 'vltok fit --resume --out {folder.path}'"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(remedy) from None
    except Exception as error:
        raise _explained(error, remedy) from error


def _explained(error: BaseException, remedy: str) -> BaseException:
    """The error with the way to go on, where it is one that a user can act on."""
    if isinstance(error, SaidElsewhere):
        return error
    found = None if isinstance(error, KeyboardInterrupt | SystemExit) else explanation(error, "fit")
    if found is None and isinstance(error, Exception) and _of_lightning(error):
        found = f"trainer: {error}"
    return error if found is None else UserError(f"{found}; {remedy}".rstrip("; "))


def _of_lightning(error: Exception) -> bool:
    """Whether Lightning itself raised it, or a callback of Lightning's: of what the recipe asks for."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    *_, above_torch = (name for name in names if not name.startswith("torch."))
    return names[-1].startswith("lightning.") or above_torch.startswith("lightning.pytorch.callbacks.")
