"""Parts of recipes that go wrong, as a user's own may."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from vltok.data.folder import Folder


class NaNGradients(Callback):
    """Makes the gradients of one rank NaN at a step.

    Args:
        step: At which.
        rank: Of which process.
    """

    def __init__(self, step: int, rank: int = 0) -> None:
        self._step, self._rank = step, rank

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= self._step and int(os.environ.get("RANK", 0)) == self._rank:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))


class Raises(Callback):
    """Raises at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step >= self._step:
            raise RuntimeError("a callback of my own fails")


class RaisingFolder(Folder):
    """A folder whose training pictures cannot be loaded for a reason that nobody has thought of."""

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(range(64), batch_size=4, num_workers=self.workers, collate_fn=_fail)


def _fail(samples: list[int]) -> None:
    raise ZeroDivisionError("a loader of my own fails")
