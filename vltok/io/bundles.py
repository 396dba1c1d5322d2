"""Bundles: a trained tokenizer or prior as a folder that anyone can load, without pickle.

```
bundle/
  config.yaml         what to build (a recipe's class_path and init_args), what it needs, and the weights' hash;
                      for a prior also which tokenizer's codes it models, and where that is
  model.safetensors   the weights
  README.md           a model card, as the Hugging Face Hub shows it
```
"""

import hashlib
import importlib.metadata
import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors.torch import load_model, save_model
from torch import nn

from vltok.errors import UserError
from vltok.files import folder_written_whole, sha256_of
from vltok.interfaces import Prior, Standalone, Tokenizer
from vltok.io.cards import model_card
from vltok.io.recipes import dump, instantiate, parse_tree, recipe_parser, with_names
from vltok.registry import KINDS, components, resolve_names
from vltok.version import __version__

#: The version of the layout of a bundle; a reader takes only its own.
FORMAT = 1
_CONFIG, _WEIGHTS, _CARD = "config.yaml", "model.safetensors", "README.md"

Kind = Literal["tokenizer", "prior"]


def save_tokenizer(
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
    path: str | os.PathLike,
    card: str = "",
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a tokenizer as a bundle, whole or not at all; a bundle that is there already is replaced.

    Args:
        tokenizer: Whose weights to write.
        config: What it was built from: its `class_path`, a name or a dotted path, and `init_args`.
        path: The folder to write.
        card: What the model card says about it, in Markdown: how it was trained, on what.
        metrics: Measured figures, for the model card.

    Raises:
        UserError: The folder holds something else than a bundle, or a weight is not a finite number.
    """
    _save(tokenizer, "tokenizer", config, path, card, metrics, {})


def save_prior(
    prior: Prior,
    config: Mapping[str, Any],
    path: str | os.PathLike,
    tokenizer: str,
    tokenizer_places: Sequence[str] = (),
    card: str = "",
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a prior as a bundle, whole or not at all; a bundle that is there already is replaced.

    Args:
        prior: Whose weights to write.
        config: What it was built from: its `class_path`, a name or a dotted path, and `init_args`.
        path: The folder to write.
        tokenizer: The fingerprint of the tokenizer whose codes it models.
        tokenizer_places: Where that one's bundle is: `vltok.io.places.places_of`.
        card: What the model card says about it, in Markdown: how it was trained, on what.
        metrics: Measured figures, for the model card.

    Raises:
        UserError: The folder holds something else than a bundle, or a weight is not a finite number.
    """
    belongs = {"tokenizer": {"fingerprint": tokenizer, "places": list(tokenizer_places)}}
    _save(prior, "prior", config, path, card, metrics, belongs)


def load_tokenizer(path_or_hub_id: str | os.PathLike, device: torch.device | str = "cpu") -> Tokenizer:
    """Build the tokenizer of a bundle, in evaluation mode.

    Args:
        path_or_hub_id: A bundle's folder, or where there is none of that name, a repository `user/name` on the Hugging
            Face Hub.
        device: Where to put it.

    Raises:
        UserError: There is no such bundle, it is damaged, of another version or another kind, or a distribution that
            it needs is not installed.
    """
    return _load(path_or_hub_id, "tokenizer", Tokenizer, device)


def load_prior(path_or_hub_id: str | os.PathLike, device: torch.device | str = "cpu") -> Prior:
    """Build the prior of a bundle, in evaluation mode; `vltok.find_tokenizer` says which tokenizer decodes its draws.

    Args:
        path_or_hub_id: As in `load_tokenizer`.
        device: Where to put it.

    Raises:
        UserError: As `load_tokenizer`.
    """
    return _load(path_or_hub_id, "prior", Prior, device)


def fingerprint(path: str | os.PathLike) -> str:
    """A hash of a bundle's weights and configuration, by which codes name the tokenizer that they belong to.

    It stays the same wherever the bundle is copied to, and whatever its card says.

    Raises:
        UserError: As `load_tokenizer`, as far as `config.yaml` is concerned.
    """
    return _fingerprint(path, "tokenizer")


def prior_fingerprint(path: str | os.PathLike) -> str:
    """The same of a prior's bundle.

    Raises:
        UserError: As `load_prior`, as far as `config.yaml` is concerned.
    """
    return _fingerprint(path, "prior")


def read_bundle(path_or_hub_id: str | os.PathLike, kind: Kind) -> tuple[Path, dict[str, Any]]:
    """The folder of a bundle and the content of its `config.yaml`, checked.

    Raises:
        UserError: As `load_tokenizer`, as far as `config.yaml` is concerned.
    """
    folder = _find(path_or_hub_id)
    return folder, _read(folder, kind)


def _fingerprint(path: str | os.PathLike, kind: Kind) -> str:
    _, content = read_bundle(path, kind)
    described = json.dumps([content[kind], content["weights"]["sha256"]], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _save(
    model: nn.Module,
    kind: Kind,
    config: Mapping[str, Any],
    path: str | os.PathLike,
    card: str,
    metrics: Mapping[str, Any] | None,
    others: Mapping[str, Any],
) -> None:
    """Write a bundle, with other keys in its `config.yaml`."""
    path = Path(path)
    if path.exists() and not (path / _CONFIG).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"'{path}' exists and is no bundle; it is left as it is: choose another folder")
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(
                f"weight {name} holds numbers that are not finite: training has diverged; nothing is written"
            )
    if isinstance(model, Standalone):
        config = {**config, "init_args": {**config.get("init_args", {}), **model.standalone_arguments}}
    tree = _without_downloads(with_names(dict(config), kind))
    with folder_written_whole(path) as folder:
        save_model(model, str(folder / _WEIGHTS), metadata={"format": "pt"})
        content = {
            "format": FORMAT,
            "kind": kind,
            "vltok": __version__,
            kind: tree,
            "requires": _distributions(tree, kind),
            "weights": {"sha256": sha256_of(folder / _WEIGHTS), "size": (folder / _WEIGHTS).stat().st_size},
            **others,
        }
        (folder / _CONFIG).write_text(dump(content), encoding="utf-8")
        (folder / _CARD).write_text(model_card(path.name, kind, tree, card, metrics or {}), encoding="utf-8")


def _load(path_or_hub_id: str | os.PathLike, kind: Kind, interface: type, device: torch.device | str) -> Any:
    folder, content = read_bundle(path_or_hub_id, kind)
    _check_weights(folder / _WEIGHTS, content["weights"])
    parser = recipe_parser(f"bundle '{folder}'")
    parser.add_subclass_arguments(interface, kind, required=True)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten; the caller's draws stay the same
        model = instantiate(parser, parse_tree(parser, _resolved(content, kind)))[kind]
    try:
        load_model(model, folder / _WEIGHTS, strict=True)
    except RuntimeError as error:
        # torch names every tensor in a paragraph of its own; the first ones say enough
        problem = textwrap.shorten(" ".join(str(error).splitlines()[1:]) or str(error), 200, placeholder=" …")
        raise UserError(
            f"the weights of bundle '{folder}' do not fit what {_CONFIG} describes ({problem}): undo changes to "
            f"{_CONFIG}, or copy the bundle again; it was written by vltok {content['vltok']}, this is {__version__}"
        ) from error
    return model.eval().to(device)


def _resolved(content: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """What to build, by dotted paths: a name that was taken since means what it meant when the bundle was written."""
    distributions = [required["distribution"] for required in content["requires"]]
    return resolve_names({kind: content[kind]}, distributions=distributions)


def _find(path_or_hub_id: str | os.PathLike) -> Path:
    """The folder of a bundle, fetched from the Hub where it is not on this machine."""
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    name = os.fspath(path_or_hub_id)
    if path.exists() or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        raise UserError(f"there is no bundle '{name}': {'it is a file' if path.exists() else 'no such folder'}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[_CONFIG, _WEIGHTS, _CARD]))
    except Exception as error:  # the Hub's client raises its own errors and those of whatever carries them
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"there is no folder '{name}', and the Hugging Face Hub does not give it: {reason}") from error


def _read(folder: Path, kind: Kind) -> dict[str, Any]:
    """The content of a bundle's `config.yaml`, checked."""
    path = folder / _CONFIG
    if not path.is_file():
        inner = folder / "bundle"
        hint = f"; did you mean '{inner}'?" if (inner / _CONFIG).is_file() else ""
        raise UserError(f"'{folder}' is no bundle: it has no {_CONFIG}{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is damaged: it is not YAML") from error
    if not isinstance(content, dict) or "format" not in content or "kind" not in content:
        raise UserError(f"'{path}' is not the configuration of a bundle: it names no format and kind")
    if content["format"] != FORMAT:
        raise UserError(
            f"bundle '{folder}' has format {content['format']}, but vltok {__version__} reads format {FORMAT}; "
            f"install the vltok that wrote it ({content.get('vltok', 'its version is not said')}) or a newer one"
        )
    if content["kind"] != kind:
        raise UserError(f"bundle '{folder}' holds a {content['kind']}, not a {kind}")
    needed = ("vltok", kind, "requires", "weights", *(["tokenizer"] if kind == "prior" else []))
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"'{path}' is damaged: it has no {missing[0]}")
    for required in content["requires"]:
        try:
            importlib.metadata.version(required["distribution"])
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"bundle '{folder}' needs {required['distribution']} {required['version']}, which is not installed: "
                f"pip install {required['distribution']}"
            ) from error
    return content


def _check_weights(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise UserError(f"bundle '{path.parent}' has no {path.name}")
    if path.stat().st_size != expected["size"]:
        raise UserError(
            f"'{path}' is damaged: it has {path.stat().st_size} bytes, and was written with {expected['size']}; "
            f"copy the bundle again"
        )
    if sha256_of(path) != expected["sha256"]:
        raise UserError(f"'{path}' is damaged: its hash is not the one in {_CONFIG}; copy the bundle again")


def _without_downloads(tree: Any) -> Any:
    """The tree with `pretrained: true` turned off: the bundle's own weights come in their place."""
    if isinstance(tree, dict):
        return {
            key: False if key == "pretrained" and value is True else _without_downloads(value)
            for key, value in tree.items()
        }
    return [_without_downloads(item) for item in tree] if isinstance(tree, list) else tree


def _distributions(tree: Any, kind: str) -> list[dict[str, str]]:
    """The distributions that hold the classes of a tree, with their versions."""
    found: dict[str, str] = {}
    modules = importlib.metadata.packages_distributions()
    for owner, name in _classes(tree, kind):
        registered = [
            component
            for component in (components(owner) if owner in KINDS else ())
            if name in (component.name, component.class_path)
        ]
        if registered:
            found[registered[0].distribution] = registered[0].version
        else:
            for distribution in modules.get(name.partition(".")[0], ())[:1]:
                found[distribution] = importlib.metadata.version(distribution)
    return [{"distribution": name, "version": version} for name, version in sorted(found.items())]


def _classes(tree: Any, key: object) -> Iterator[tuple[object, str]]:
    """The class paths of a tree, each with the key that it stands under."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == "class_path":
                yield key, value
            else:
                yield from _classes(value, name)
    elif isinstance(tree, list):
        for item in tree:
            yield from _classes(item, key)
