"""The curves of a run: what is logged goes into its `metrics.csv`, whatever other loggers there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vltok.io.curve_files import CURVES, STEP, CurveFile
from vltok.training.pictures import FiguresAlone

_POINTS = 10


class CurveLogger(Logger, FiguresAlone):
    """Writes the figures of a run folder's `metrics.csv`, in which a training that is resumed goes on.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._file = CurveFile(folder / CURVES)

    @property
    def name(self) -> str:
        """None: the run folder is its own."""
        return ""

    @property
    def version(self) -> str:
        """None."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row."""
        self._file.append({STEP: step or 0, **metrics})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` has the recipe."""


class CurvesOfShortRuns(Callback):
    """Lets a training that is shorter than ten intervals of the log have ten entries all the same.

    Args:
        given: Whether the interval is the user's: then it is shortened only where nothing would be logged.
    """

    def __init__(self, given: bool) -> None:
        self._given = given

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shorten the interval."""
        steps = trainer.estimated_stepping_batches - trainer.global_step
        if steps < trainer.log_every_n_steps * (1 if self._given else _POINTS):
            trainer.log_every_n_steps = max(int(steps) // _POINTS, 1)
