"""Reading other projects' files without executing anything that they hold."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.importers.tensors_only import load_tensors_only

#: Where projects keep the weights of a model in what they save, and their averages.
_PLACES, _AVERAGES = ("state_dict", "model", "module", "model_state_dict"), ("ema", "ema_state_dict", "model_ema")
#: How Lightning's models of latent-diffusion keep averages: names without dots, below this one.
_EMA_PREFIX = "model_ema."
#: What wrappers of the training add to names.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds of a model.

    Attributes:
        tensors: By name, on the CPU, each with memory of its own.
        averaged: Whether they are moving averages (EMA) of the weights.
    """

    tensors: dict[str, Tensor]
    averaged: bool


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. See `read_checkpoint`."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: str | Path, averages: bool = True) -> Checkpoint:
    """Read a checkpoint, and execute nothing of it.

    Args:
        path: What `torch.save` wrote, at any time and with any other objects inside, or a safetensors file.
        averages: Whether to take the weights' moving averages (EMA) where the checkpoint has them.

    Raises:
        UserError: There is no such file, it is damaged, or it holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint '{path}'")
    try:
        content = _content(path)
    # what pickle makes of damaged bytes can be an error of nearly any kind
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise _damaged(path, error) from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, MemoryError) as error:
        raise _damaged(path, error) from error
    places = (*_AVERAGES, *_PLACES) if averages else (*_PLACES, *_AVERAGES)
    inner = {place: _tensors(content[place]) for place in places if isinstance(content, Mapping) and place in content}
    place = next((place for place, found in inner.items() if found), None)
    tensors = _tensors(content) if place is None else inner[place]
    if not tensors:
        raise UserError(f"checkpoint '{path}' holds no tensors, neither at its top nor under '{_PLACES[0]}'")
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    own = {name: value for name, value in tensors.items() if not name.startswith(_EMA_PREFIX)}
    averaged = {
        name: tensors[average]
        for name in own
        if (average := _EMA_PREFIX + name.replace(".", "")) in tensors and averages
    }
    # of tensors that share memory, safetensors takes none
    chosen = {name: value.clone() for name, value in {**own, **averaged}.items()}
    return Checkpoint(chosen, bool(averaged) or place in _AVERAGES)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with path.open("rb") as file:
        start = file.read(2)
    # what pickle says of any other file misleads
    if start != b"PK" and start[:1] != b"\x80":
        raise UserError(f"'{path}' is no checkpoint: it is neither what torch.save writes nor a .safetensors file")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise UserError(f"'{path}' is a TorchScript program, which runs when it is read: give its state dict")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it holds more than tensors
        return load_tensors_only(path)


def _tensors(content: Any) -> dict[str, Tensor]:
    content = content if isinstance(content, Mapping) else {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(f"checkpoint '{path}' is damaged or no checkpoint: {reason}")


def load_config(path: str | Path) -> dict[str, Any]:
    """The content of a YAML or JSON file.

    Raises:
        UserError: There is no such file, or it is no YAML of keys and values.
    """
    try:
        config = yaml_text.load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration '{path}' cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"configuration '{path}' is not YAML") from error
    if not isinstance(config, dict):
        raise UserError(f"configuration '{path}' must hold keys and values, not {type(config).__name__}")
    return config


def entry(config: Mapping[str, Any], *keys: str) -> Any:
    """A nested value of a configuration.

    Raises:
        UserError: It is not there.
    """
    value: Any = config
    for depth, key in enumerate(keys):
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(
                f"the configuration has no '{'.'.join(keys[: depth + 1])}': is it one of this importer's project?"
            )
        value = value[key]
    return value


def optional(config: Mapping[str, Any], *keys: str) -> Any:
    """The same, or None where it is not there."""
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
