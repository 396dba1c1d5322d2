"""How the learning rate moves: linear warm-up, then constant or a cosine decay."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from vltok.errors import UserError


@dataclass(frozen=True)
class LearningRateSchedule:
    """What the peak learning rate is multiplied by at each step; fits torch's `LambdaLR`.

    Attributes:
        warmup_steps: The factor rises linearly from 0, and is 1 after so many steps.
        decay_end: The step at which the cosine that starts behind the warm-up reaches `floor`; None stays at 1.
        floor: The least factor of the cosine, in [0, 1].
        ahead: By how many steps it is further than the updates that were done.
    """

    warmup_steps: int = 0
    decay_end: int | None = None
    floor: float = 0.0
    ahead: float = 0.0

    def __call__(self, update: int) -> float:
        """The factor for the update that follows so many others."""
        step = update + self.ahead
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.decay_end is None:
            return 1.0
        length = max(self.decay_end - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / length, 1.0)
        return max((math.cos(math.pi * progress) + 1) / 2, self.floor)

    def after(self, before: LearningRateSchedule, update: int) -> LearningRateSchedule:
        """The same from where another one stood after so many updates, which counts the same training in other steps.

        Warm-up and decay go on at the same share of their lengths.
        """
        step = update + before.ahead
        if step < before.warmup_steps:
            here = step * self.warmup_steps / before.warmup_steps
        elif before.decay_end is None or self.decay_end is None:
            here = max(step, self.warmup_steps)
        else:
            length = max(before.decay_end - before.warmup_steps, 1)
            share = (step - before.warmup_steps) / length
            here = self.warmup_steps + share * max(self.decay_end - self.warmup_steps, 1)
        return replace(self, ahead=here - update)


@dataclass(frozen=True)
class SchedulePlan:
    """A schedule as recipes write it, which may count in epochs: their length is known once the data is.

    Attributes:
        shape: ``constant`` after the warm-up, or ``cosine``, which ends with the training.
        warmup_steps: Length of the warm-up in updates.
        warmup_epochs: Length of the warm-up in epochs, which may be a fraction; only one of the two may be set.
        floor: The least factor of the cosine, in [0, 1].

    Raises:
        UserError: Both lengths are set, or a number is out of range.
    """

    shape: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or self.warmup_epochs < 0:
            raise UserError(
                f"a warm-up cannot be negative: warmup_steps is {self.warmup_steps}, warmup_epochs {self.warmup_epochs}"
            )
        if self.warmup_steps and self.warmup_epochs:
            raise UserError(f"set warmup_steps ({self.warmup_steps}) or warmup_epochs ({self.warmup_epochs}), not both")
        if not 0 <= self.floor <= 1:
            raise UserError(f"learning_rate_floor must be in [0, 1], not {self.floor}")

    def in_updates(
        self, epoch_batches: int | float, step_batches: int, total_steps: int | float
    ) -> LearningRateSchedule:
        """Count everything in updates of a training.

        Args:
            epoch_batches: Batches of an epoch, or infinity where the data does not say.
            step_batches: Batches whose gradients are accumulated to one update.
            total_steps: Updates of the whole training; infinity or a number below 1 where it has no end.

        Raises:
            UserError: Epochs are asked for and their length is not known, or a cosine and its end is not.
        """
        warmup_steps = self.warmup_steps
        if self.warmup_epochs:
            if math.isinf(epoch_batches):
                raise UserError(
                    f"warmup_epochs is {self.warmup_epochs:g}, but the data does not say how long an epoch is: set "
                    "warmup_steps, or trainer.limit_train_batches to a number of batches"
                )
            warmup_steps = round(self.warmup_epochs * math.ceil(epoch_batches / step_batches))
        if self.shape == "constant":
            return LearningRateSchedule(warmup_steps)
        if math.isinf(total_steps) or total_steps < 1:
            raise UserError("schedule: cosine must know when training ends: set trainer.max_epochs or max_steps")
        return LearningRateSchedule(warmup_steps, int(total_steps), self.floor)
