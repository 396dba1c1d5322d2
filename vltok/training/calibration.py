"""Calibration: parts that measure something on training images do so before the first step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from lightning.pytorch import Trainer
from torch import Tensor

from vltok.interfaces import Calibrated, Tokenizer


def calibrate(tokenizer: Tokenizer, trainer: Trainer, batches: Iterable, count: int) -> None:
    """Calibrate the parts of a tokenizer that are not yet, alike on all devices.

    Args:
        tokenizer: Its modules that are `Calibrated` are calibrated in place.
        trainer: Knows the devices.
        batches: Batches of training images, with an attribute ``images``; gone through once for each part.
        count: How many batches are used at most.
    """
    parts = [part for part in tokenizer.modules() if isinstance(part, Calibrated) and not part.calibrated]
    if not parts:
        return
    device = trainer.strategy.root_device

    def images() -> Iterator[Tensor]:
        for batch in itertools.islice(batches, count):
            yield batch.images.to(device)

    for part in parts:
        # on every device, because a part may measure on all of them together; one that does not may come out different
        part.calibrate(images())
        if trainer.world_size > 1:
            state = {name: value.cpu() for name, value in part.state_dict().items()}
            part.load_state_dict(trainer.strategy.broadcast(state))
