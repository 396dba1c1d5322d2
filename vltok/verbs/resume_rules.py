"""What may be given with `vltok fit --resume`: how long to train, and how; never what is trained."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch.callbacks import Callback

from vltok.errors import UserError
from vltok.evaluation.differences import differences

#: How long the run is. It is the run's own from then on: a plain --resume goes on to the same end.
LENGTH = ("trainer.max_steps", "trainer.max_epochs", "trainer.min_steps", "trainer.min_epochs")
#: Where and how it is computed, watched and validated: for this time alone.
THIS_TIME = (
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy", "plugins", "benchmark")),
    *(f"trainer.{key}" for key in ("logger", "log_every_n_steps", "profiler", "detect_anomaly", "max_time")),
    *(f"trainer.{key}" for key in ("enable_progress_bar", "enable_model_summary", "enable_checkpointing")),
    *(f"trainer.{key}" for key in ("limit_val_batches", "val_check_interval", "check_val_every_n_epoch")),
    *(f"trainer.{key}" for key in ("num_sanity_val_steps", "inference_mode", "enable_autolog_hparams")),
    *(f"data.{key}" for key in ("root", "val_root", "shards", "val_shards", "validation", "workers")),
    *(f"data.{key}" for key in ("copies", "copies_gb")),
    *(f"model.{key}" for key in ("compile", "channels_last", "attention")),
)
_LONGEST = 60


def resumed_recipe(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a run that goes on: its own, but for its length, which may be given anew.

    Args:
        own: The run's resolved recipe.
        given: What the command line asks for, resolved as well.

    Raises:
        UserError: Something is given that would train something else: names it.
    """
    different = dict(_different(_compared(own), _compared(given)))
    refused = [
        f"{name} is {_shown(there)} there and {_shown(here)} here"
        for name, (there, here) in different.items()
        if not _among(name, (*LENGTH, *THIS_TIME, "out"))
    ]
    if refused:
        more = f" (and {len(refused) - 2} more)" if len(refused) > 2 else ""
        raise UserError(
            f"--resume goes on with what the run trains, but {', '.join(refused[:2])}{more}: leave that out, or start "
            "a new run with another --out"
        )
    keys = [name.removeprefix("trainer.") for name in different if name in LENGTH]
    return {**own, "trainer": {**own["trainer"], **{key: given["trainer"][key] for key in keys}}}


def _compared(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the callbacks that keep nothing in a checkpoint: they watch, and may come and go."""
    callbacks = recipe["trainer"]["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    # a function that makes one does not say what it keeps
    lasting = [
        entry
        for entry in callbacks
        if getattr(pydoc.locate(entry["class_path"]), "state_dict", None) is not Callback.state_dict
    ]
    return {**recipe, "trainer": {**recipe["trainer"], "callbacks": lasting}}


def _different(own: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """What differs, by the names that options have."""
    for key, pair in differences(own, given).items():
        yield re.sub(r"\.init_args(?=\.|$)|\.class_path$", "", key), pair


def _among(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in allowed)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
