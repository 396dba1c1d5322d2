"""Reading other projects' files without executing anything that they hold."""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load
from torch import Tensor

from vltok.errors import UserError, first_line
from vltok.io import yaml_text
from vltok.io.importers.tensors_only import load_tensors_only

#: Where projects keep the weights of a model in what they save, and their averages.
_PLACES = ("state_dict", "model", "module", "model_state_dict", "generator")
_AVERAGES = ("ema", "ema_state_dict", "model_ema", "generator_ema", "shadow")
#: How Lightning's models of latent-diffusion keep averages: names without dots, below this one.
_EMA_PREFIX = "model_ema."
#: What wrappers of the training add to names: before all of them, or before those of a part that was compiled.
_WRAPPER, _COMPILED = "module.", "_orig_mod."
#: How many times the bytes of a file its tensors may take: honest ones share memory, hostile ones repeat a value.
_MOST_TIMES = 4
#: The end of the name of a file that says which of several files holds a tensor.
INDEX = ".index.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds of a model.

    Attributes:
        tensors: By name, on the CPU, each with memory of its own.
        averaged: Whether they are moving averages (EMA) of the weights.
        sha256: The hash of the file, or of the files one after another.
    """

    tensors: dict[str, Tensor]
    averaged: bool
    sha256: str


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. See `read_checkpoint`."""
    return read_checkpoint(path).tensors


def read_checkpoint(path: str | Path, averages: bool = True) -> Checkpoint:
    """Read a checkpoint once, and execute nothing of it.

    Args:
        path: What `torch.save` wrote, at any time and with any other objects inside, a safetensors file, or the index
            of several of them.
        averages: Whether to take the weights' moving averages (EMA) where the checkpoint has them.

    Raises:
        UserError: There is no such file, it is damaged, or it holds no tensors.
    """
    path = Path(path)
    files = _files_of(path) if path.name.endswith(INDEX) else [path]
    found, size, sha256 = {}, 0, hashlib.sha256()
    for file in files:
        content = _bytes(file)
        size += len(content)
        sha256.update(content)
        if len(files) == 1:
            found = _content(file, content)
        else:
            found |= _tensors(_content(file, content))
        del content
    tensors, place = _placed(found, averages)
    if not tensors:
        raise UserError(f"checkpoint '{path}' holds no tensors, neither at its top nor under '{_PLACES[0]}'")
    if strange := [name for name, value in tensors.items() if value.is_meta or value.layout != torch.strided]:
        raise UserError(f"checkpoint '{path}' holds tensors without values or sparse ones, such as {strange[0]}")
    if sum(value.nbytes for value in tensors.values()) > _MOST_TIMES * size:
        largest = max(tensors, key=lambda name: tensors[name].nbytes)
        raise UserError(
            f"checkpoint '{path}' is damaged: its {size} bytes cannot hold such tensors as "
            f"{largest} {list(tensors[largest].shape)}"
        )
    tensors = {name.replace(_COMPILED, ""): value for name, value in tensors.items()}
    if all(name.startswith(_WRAPPER) for name in tensors):
        tensors = {name.removeprefix(_WRAPPER): value for name, value in tensors.items()}
    own = {name: value for name, value in tensors.items() if not name.startswith(_EMA_PREFIX)}
    averaged = {
        name: tensors[average]
        for name in own
        if (average := _EMA_PREFIX + name.replace(".", "")) in tensors and averages
    }
    # of tensors that share memory, safetensors takes none
    chosen = {name: value.clone() for name, value in {**own, **averaged}.items()}
    return Checkpoint(chosen, bool(averaged) or place in _AVERAGES, sha256.hexdigest())


def _files_of(index: Path) -> list[Path]:
    """The files that an index names, which lie beside it."""
    names = load_config(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"'{index}' is damaged: it has no weight_map, which says the file of each tensor")
    files = sorted({str(name) for name in names.values()})
    if strange := [name for name in files if Path(name).name != name or name in ("", "..")]:
        raise UserError(f"'{index}' names the file '{strange[0]}', which does not lie beside it")
    return [index.with_name(name) for name in files]


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"there is no checkpoint '{path}'")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"checkpoint '{path}' cannot be read: {error.strerror}") from error


def _content(path: Path, content: bytes) -> Any:
    """What a file holds, whatever its name ends in."""
    start, safe = content[:200].lstrip(), content[8:9] == b"{"
    what = None if content else "it is empty"
    if start.startswith(b"version https://git-lfs"):
        what = "it is a pointer of Git LFS: fetch the file that it stands for, with 'git lfs pull'"
    elif start.startswith(b"<") and not safe:  # there stands the length of safetensors' header, which may be any byte
        what = "it is a web page: download the file that the page offers"
    elif path.suffix != ".safetensors" and not safe and content[:2] != b"PK" and content[:1] != b"\x80":
        what = "it is neither what torch.save writes nor a .safetensors file"
    if what is not None:
        raise UserError(f"'{path}' is no checkpoint: {what}")
    # what pickle makes of damaged bytes can be an error of any kind
    try:
        if not safe and content[:2] == b"PK":
            _check_archive(path, content)
        elif safe or path.suffix == ".safetensors":
            return load(content)
        with warnings.catch_warnings():  # of protocols that torch does not write itself
            warnings.simplefilter("ignore")
            try:
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            except pickle.UnpicklingError:  # it holds more than tensors
                return load_tensors_only(io.BytesIO(content))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"checkpoint '{path}' is damaged or no checkpoint: {first_line(error)}") from error


def _check_archive(path: Path, content: bytes) -> None:
    """See that a ZIP archive is whole and one that `torch.save` wrote; torch compares no checksum, and unpacks all."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        if not any(name.endswith("/data.pkl") for name in names):
            raise UserError(f"'{path}' is no checkpoint: it is a ZIP archive that torch.save did not write")
        if any(name.endswith("/constants.pkl") for name in names):
            raise UserError(f"'{path}' is a TorchScript program, which runs when it is read: give its state dict")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise UserError(f"'{path}' is no checkpoint: it is compressed, as torch.save writes none")
        for member in archive.infolist():
            if member.CRC:  # torch can be told to compute none, and then writes 0
                archive.read(member)
    except zipfile.BadZipFile as error:
        raise UserError(f"checkpoint '{path}' is damaged: a part of it is missing or changed ({error})") from error


def _placed(content: Any, averages: bool) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a model, and the place in which they were found, at most two places deep."""
    places = (*_AVERAGES, *_PLACES) if averages else (*_PLACES, *_AVERAGES)
    for place in places if isinstance(content, Mapping) else ():
        inner = content.get(place)
        deeper = [(key, _tensors(inner.get(key))) for key in places] if isinstance(inner, Mapping) else []
        for key, tensors in [(place, _tensors(inner)), *deeper]:
            if any(value.dim() for value in tensors.values()):  # numbers alone, such as a decay, are no weights
                return tensors, key if key in _AVERAGES else place
    return _tensors(content), None


def _tensors(content: Any) -> dict[str, Tensor]:
    content = content if isinstance(content, Mapping) else {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


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
        raise UserError(f"configuration '{path}' is not YAML: {yaml_text.problem_of(error)}") from error
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
