"""Parts of recipes that go wrong, as a user's own may."""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from vltok.pictures.folder import Folder


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


class KeyLog(Callback):
    """Writes down what each batch holds, in a file for each rank.

    Args:
        path: The file, to which the rank is added.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        held = batch.keys if hasattr(batch, "keys") else [zlib.crc32(codes.ids.numpy().tobytes()) for codes in batch]
        line = json.dumps([trainer.current_epoch, batch_idx, trainer.global_step, held])
        with open(f"{self._path}.{trainer.global_rank}", "a") as file:
            file.write(line + "\n")
