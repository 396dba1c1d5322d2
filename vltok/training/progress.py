"""Progress where there is no terminal: a line now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar

from vltok.errors import UserError, how_many
from vltok.training.objective import Rated


class StepSize(Callback):
    """Says at the first step how many images of all processes make one, and how large the learning rate becomes.

    Args:
        say: Is told.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Batches of tokens have about as many images on other processes and at other steps."""
        if self._told or not trainer.is_global_zero or not isinstance(pl_module, Rated):
            return
        self._told = True
        parts = {"processes": trainer.world_size, "batches": trainer.accumulate_grad_batches}
        images = math.prod([len(batch), *parts.values()])
        shared = "".join(f" × {count} {name}" for name, count in parts.items() if count > 1)
        of = f" ({len(batch)}{shared})" if shared else ""
        rate = pl_module.peak_rate(images)
        self._say(f"{how_many(images, 'image')} a step{of}; the learning rate rises to {rate:.4g}")


class PlainProgress(ProgressBar):
    """Prints a line of figures now and then, and after each validation: for logs, where a bar would fill pages.

    Args:
        every_n_seconds: Seconds between lines while training.
        say: What a line is given to.

    Raises:
        UserError: A time that is not positive.
    """

    def __init__(self, every_n_seconds: float = 15.0, say: Callable[[str], None] = print) -> None:
        super().__init__()
        if every_n_seconds <= 0:
            raise UserError(f"every_n_seconds must be positive, not {every_n_seconds}")
        self.every_n_seconds = every_n_seconds
        self.say = say
        self._enabled = True
        self._printed_at = -math.inf

    def disable(self) -> None:
        """Print nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Print."""
        self._enabled = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A line, if it is time for one."""
        if self._enabled and time.monotonic() - self._printed_at >= self.every_n_seconds:
            self._print_line(trainer, pl_module, validation=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A line with what validation measured."""
        if self._enabled and not trainer.sanity_checking:
            self._print_line(trainer, pl_module, validation=True)

    def _print_line(self, trainer: Trainer, pl_module: LightningModule, validation: bool) -> None:
        figures = {
            name: value
            for name, value in self.get_metrics(trainer, pl_module).items()
            if name.startswith("val_") == validation and isinstance(value, (int, float)) and name != "v_num"
        }
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(f"epoch {trainer.current_epoch}  step {trainer.global_step}  {shown}")
        self._printed_at = time.monotonic()
