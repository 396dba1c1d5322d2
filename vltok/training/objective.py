"""What `vltok fit` asks of a training that shall leave a bundle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningDataModule, LightningModule

from vltok.interfaces import Prior, Tokenizer


class Objective(LightningModule, ABC):
    """How a tokenizer or a prior is trained: a Lightning module that says what of it is the result.

    `vltok fit` trains any Lightning module. For one of these it also sees that the data suits, measures the part that
    was trained, and writes `metrics.json` and the bundle.
    """

    @property
    @abstractmethod
    def trained(self) -> Tokenizer | Prior:
        """The part that becomes the bundle: an argument of the constructor, kept as an attribute of the same name."""

    @property
    @abstractmethod
    def batches_calibrated_on(self) -> int:
        """How many batches of training crops a calibration has looked at, which are not measured; 0 for none."""

    @abstractmethod
    def check_data(self, data: LightningDataModule) -> None:
        """See that the data suits, before anything is trained or written.

        Raises:
            UserError: It does not: names the key, what it is and what it must be.
        """

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """What the training itself has measured: `metrics.json` holds it beside what every bundle is measured for."""


@runtime_checkable
class Rated(Protocol):
    """A training that knows which learning rate follows from the images of a step."""

    def peak_rate(self, images: int) -> float:
        """The largest learning rate of the schedule, where so many images of all processes make a step."""


def name_of_trained(objective: Objective) -> str:
    """The argument, and attribute, of an objective that holds the part which becomes the bundle."""
    return next(name for name, child in objective.named_children() if child is objective.trained)
