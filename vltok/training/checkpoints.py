"""Checkpoints on disk: written whole or not at all, read only where they are whole."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer

from vltok.errors import UserError, of_memory
from vltok.files import move, written_whole

#: What Lightning needs to go on.
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "epoch")


class DamagedCheckpoint(UserError):
    """A checkpoint whose bytes are not those that were written."""


class WholeCheckpoints(CheckpointIO):
    """Writes each checkpoint beside its place and renames it; the one that was there stays as `previous_of` it.

    Lightning's own way copies a finished file over the old one, so that a full disk or a killed process costs both.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            UserError: There is no room, or the folder does not let it: what was there is as it was.
        """
        path = Path(path)
        try:
            with written_whole(path) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path.is_file():
                    move(path, previous_of(path))
        except (OSError, RuntimeError) as error:
            # torch's writer puts an error of its own on top of the file system's
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            left = "; the one before it is left as it was" if path.is_file() else ""
            raise UserError(f"checkpoint '{path}' cannot be written: {cause.strerror}{left}") from error

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the host's memory; no pickle of anything but plain values is ever loaded.

        Raises:
            UserError: It is damaged, or none of `vltok fit`.
        """
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        """Remove a checkpoint, and the one before it."""
        for place in (Path(path), previous_of(Path(path))):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)


def previous_of(path: Path) -> Path:
    """Where the checkpoint stays that a newer one has replaced."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def heal_checkpoint(path: Path) -> dict[str, Any]:
    """The newest whole checkpoint, at its place: where it is damaged or missing, the one before takes its place.

    What a killed process left half-written is removed. Only one process may call it, and none that writes.

    Raises:
        UserError: There is no whole checkpoint, or the newest, which is left where it is, may not be read.
        RuntimeError: There is too little memory to read it.
    """
    for unfinished in path.parent.glob(f".{path.name}.*"):
        unfinished.unlink()
    previous = previous_of(path)
    if path.is_file():
        try:
            return read_checkpoint(path)
        except DamagedCheckpoint as error:
            if not previous.is_file():
                raise
            reason = str(error)
    elif previous.is_file():
        reason = f"there is no {path}"
    else:
        raise UserError(f"there is no {path} to go on with")
    checkpoint = read_checkpoint(previous)
    warnings.warn(f"{reason}; going on from the one before it, of step {checkpoint['global_step']}", stacklevel=2)
    move(previous, path)
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the host's memory, and see that every byte is as it was written.

    Raises:
        DamagedCheckpoint: It is damaged, or none of `vltok fit`.
        UserError: It may not be read, or not loaded.
        RuntimeError: There is too little memory.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"checkpoint '{path}' cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            broken = archive.testzip()
        if broken is not None:
            raise DamagedCheckpoint(f"checkpoint '{path}' is damaged: {broken} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DamagedCheckpoint(f"checkpoint '{path}' is damaged: it is cut short, or no checkpoint at all") from error
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(
            f"checkpoint '{path}' holds more than tensors and plain values: it is not loaded"
        ) from error
    # what zip archives, pickle and torch make of damaged bytes can be an error of nearly any kind
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if of_memory(error):  # another time there is enough
            raise
        reason = error.strerror if isinstance(error, OSError) else "it holds no tensors as torch writes them"
        raise DamagedCheckpoint(f"checkpoint '{path}' cannot be read: {reason}") from error
    missing = [part for part in _PARTS if part not in content] if isinstance(content, dict) else list(_PARTS)
    if missing:
        raise DamagedCheckpoint(f"'{path}' is no checkpoint of a training: it lacks {', '.join(missing)}")
    return content


def require_fitting(checkpoint: Mapping[str, Any], module: LightningModule, trainer: Trainer) -> None:
    """See that a training can go on from a checkpoint, before it touches anything.

    Raises:
        UserError: It is of another model, or the end is behind it already.
    """
    stored, own = checkpoint["state_dict"], module.state_dict()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    strange = sorted((stored.keys() - own.keys()) | (trained - stored.keys()))
    if strange:
        where = "the checkpoint" if strange[0] in stored else "the recipe's model"
        raise UserError(f"the checkpoint is of another model: {strange[0]} is only in {where}")
    for name, value in stored.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"the checkpoint is of another model: {name} is {_by(value)} there and {_by(own[name])} in the recipe's"
            )
    step, end = checkpoint["global_step"], trainer.max_steps
    if 0 <= end < step:
        raise UserError(f"trainer.max_steps is {end}, but the run is at step {step} already: give that, or more")
    epoch, end = checkpoint["epoch"], trainer.max_epochs
    if end is not None and 0 <= end < epoch:
        raise UserError(f"trainer.max_epochs is {end}, but the run is in epoch {epoch} already: give that, or more")


def _by(value: torch.Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "a number"
