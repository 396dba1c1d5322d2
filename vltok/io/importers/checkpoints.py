"""Reading other projects' files without executing anything that they hold."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vltok.errors import UserError
from vltok.io import yaml_text


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU: those under its entry ``state_dict`` where it has one.

    Raises:
        UserError: There is no such file, it is damaged, or reading it would execute code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint '{path}'")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_start(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint '{path}' holds more than tensors, and reading that would execute code; if you trust whoever "
            "made it, read it in a program of your own, and write its state dict with safetensors.torch.save_file"
        ) from error
    # what pickle makes of damaged bytes can be an error of nearly any kind
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"checkpoint '{path}' is damaged or no checkpoint: {reason}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    content = content if isinstance(content, Mapping) else {}
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"checkpoint '{path}' holds no tensors, neither at its top nor under 'state_dict'")
    return tensors


def _check_start(path: Path) -> None:
    """See that a file begins as what `torch.save` writes: what pickle says of any other file misleads."""
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":
        raise UserError(f"'{path}' is no checkpoint: it is neither what torch.save writes nor a .safetensors file")


def load_config(path: str | Path) -> dict[str, Any]:
    """The content of a YAML file.

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
