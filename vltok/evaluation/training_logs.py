"""What a training run logged, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.curve_files import CURVES, STEP, read_rows

#: Steps and values of a scalar.
Curve = tuple[tuple[int, ...], tuple[float, ...]]
_RATIO = "ratio_"
#: What curves are called, and what they are logged as.
_LOGGED = {"length": "code_length", "budget": "budget", "val_psnr": "val_psnr", "val_length": "val_code_length"}


@dataclass(frozen=True)
class TrainingLog:
    """The curves of a run of `vltok fit`.

    Attributes:
        curves: What was logged of these: `length`, the mean code length of the training batches; `budget`, the budget
            loss, weighted; `val_psnr` and `val_length`, of the held-out pictures.
        ratios: The share of regions of each granularity, by factor.
        targets: The shares that the run was asked to reach, by factor; empty where its recipe names none.
    """

    curves: Mapping[str, Curve]
    ratios: Mapping[int, Curve]
    targets: Mapping[int, float]

    @classmethod
    def read(cls, run: Path) -> TrainingLog:
        """Read the `metrics.csv` and `config.yaml` of a run folder; of version 0.1.0, what it logged to TensorBoard.

        Raises:
            UserError: They cannot be read.
        """
        logged = _curves(run / CURVES) if (run / CURVES).is_file() else _tensorboard(run / "logs")
        factors = {tag: tag.removeprefix(_RATIO) for tag in logged if tag.startswith(_RATIO)}
        ratios = {int(factor): logged[tag] for tag, factor in factors.items() if factor.isdecimal()}
        curves = {name: logged[tag] for name, tag in _LOGGED.items() if tag in logged}
        return cls(curves, ratios, _targets(run / "config.yaml"))

    @property
    def empty(self) -> bool:
        """Whether nothing was logged that a curve is drawn of, as by a prior's run."""
        return not self.curves and not self.ratios


def is_run(folder: Path) -> bool:
    """Whether a folder is one that `vltok fit` has left."""
    return (folder / "config.yaml").is_file() and ((folder / CURVES).is_file() or (folder / "logs").is_dir())


def _curves(path: Path) -> dict[str, Curve]:
    found: dict[str, dict[int, float]] = {}
    for row in read_rows(path):
        for name in row.keys() - {STEP}:
            # of a step that was logged twice the last one counts
            found.setdefault(name, {})[int(row[STEP])] = row[name]
    return {name: _sorted(by_step) for name, by_step in found.items()}


def _tensorboard(logs: Path) -> dict[str, Curve]:
    if not any(logs.glob("events.out.tfevents.*")):
        return {}
    # it need not be installed, and takes long to import
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(logs), size_guidance={SCALARS: 0}).Reload()
    return {tag: _sorted({event.step: event.value for event in events.Scalars(tag)}) for tag in events.Tags()[SCALARS]}


def _sorted(by_step: Mapping[int, float]) -> Curve:
    return tuple(sorted(by_step)), tuple(by_step[step] for step in sorted(by_step))


def _targets(config: Path) -> dict[int, float]:
    """The ratios that the recipe gives its budget, or its gate."""
    if not config.is_file():
        return {}
    try:
        recipe = yaml_text.load(config.read_text(encoding="utf-8"))
        tokenizer = recipe.get("model", {}).get("init_args", {}).get("tokenizer") or {}
        for part in ("budget", "gate"):
            described = tokenizer.get("init_args", {}).get(part) or {}
            ratios = (described.get("init_args") or {}).get("ratios")
            if ratios:
                return {int(factor): float(share) for factor, share in ratios.items()}
    except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{config}' is not the recipe of a run of vltok fit: {' '.join(str(error).split())}"
        ) from error
    return {}
