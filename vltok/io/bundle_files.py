"""The files of a bundle, read and checked: nothing in them is taken to be what it says it is."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from vltok.errors import UserError
from vltok.files import sha256_of
from vltok.io import yaml_text
from vltok.io.hub import Hub, find
from vltok.io.migrations import present
from vltok.rates import RateCalibration
from vltok.version import __version__

CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"
#: What `vltok rate` adds to a tokenizer's bundle; the fingerprint does not depend on it. See `vltok.rates`,
#: `vltok.compression.tables` for how often its codes occur, and `vltok.evaluation.rate_means`.
MEASURED = CALIBRATION, TABLES, CURVE = "rate.json", "code_tables.safetensors", "rate_curve.json"
FILES = (CONFIG, WEIGHTS, CARD, *MEASURED)

Kind = Literal["tokenizer", "prior"]

#: No configuration comes near it.
_MOST_BYTES = 1_000_000
_HASH = re.compile(r"[0-9a-f]{64}")
#: PEP 508's names of distributions.
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,98}")


def read_bundle(place: str | os.PathLike, kind: Kind | None, hub: Hub | None = None) -> tuple[Path, dict[str, Any]]:
    """The folder of a bundle and the content of its `config.yaml`, checked.

    Args:
        place: A folder, or a repository on the Hub.
        kind: What it must hold; either where None.
        hub: How the Hub is asked.

    Raises:
        UserError: There is no such bundle, its configuration is damaged, of another version or another kind, or a
            distribution that it needs is not installed.
    """
    folder = find(place, hub or Hub(), FILES)
    path = folder / CONFIG
    inner = folder / "bundle"  # of a run
    hint = f"; did you mean '{inner}'?" if (inner / CONFIG).is_file() else ""
    if not path.is_file():
        raise UserError(f"'{folder}' is no bundle: it has no {CONFIG}{hint}")
    content = _content(path)
    kinds = get_args(Kind)
    if not isinstance(content, dict) or "format" not in content or content.get("kind") not in kinds:
        raise UserError(
            f"'{path}' is not the configuration of a bundle: it names no format, or no kind of {' and '.join(kinds)}"
            f"{hint}"
        )
    if type(content["format"]) is not int or not 1 <= content["format"] <= present():
        raise UserError(
            f"bundle '{folder}' has format {content['format']!r}, but vltok {__version__} reads format {present()}; "
            f"install the vltok that wrote it ({content.get('vltok', 'its version is not said')}) or a newer one"
        )
    if kind not in (None, content["kind"]):
        raise UserError(f"bundle '{folder}' holds a {content['kind']}, not a {kind}")
    _check(path, content, content["kind"])
    _check_installed(folder, content["requires"])
    return folder, content


def read_calibration(folder: Path, tokenizer: str) -> RateCalibration | None:
    """What `vltok rate` has stored in the folder of a tokenizer's bundle, if anything.

    Args:
        folder: The bundle's.
        tokenizer: Its fingerprint.

    Raises:
        UserError: It is damaged, or another tokenizer's.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        return RateCalibration.read(path.read_text(encoding="utf-8"), tokenizer)
    except (OSError, ValueError, RecursionError, UserError) as error:
        raise UserError(f"'{path}' cannot be used ({error}): remove it, and measure anew with 'vltok rate'") from error


def fingerprint_of(content: Mapping[str, Any], kind: Kind) -> str:
    """The fingerprint of a bundle whose configuration has been read."""
    described = json.dumps([content[kind], content["weights"]["sha256"]], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def check_weights(path: Path, expected: Mapping[str, Any]) -> None:
    """See that the weights are those that the configuration speaks of.

    Raises:
        UserError: They are not there, or others.
    """
    if not path.is_file():
        raise UserError(f"bundle '{path.parent}' has no {path.name}")
    if path.stat().st_size != expected["size"]:
        raise UserError(
            f"'{path}' is damaged: it has {path.stat().st_size} bytes, and was written with {expected['size']}; "
            f"copy the bundle again"
        )
    if sha256_of(path) != expected["sha256"]:
        raise UserError(f"'{path}' is damaged: its hash is not the one in {CONFIG}; copy the bundle again")


def _content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise UserError(f"'{path}' is not the configuration of a bundle: it has more than {_MOST_BYTES} bytes")
    try:
        return yaml_text.load(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is damaged: it is not text") from error
    except yaml.YAMLError as error:
        raise UserError(f"'{path}' is damaged: it is not YAML: {yaml_text.problem_of(error)}") from error


def _check(path: Path, content: Mapping[str, Any], kind: Kind) -> None:
    """See that every key holds what it should."""
    needed = ("vltok", kind, "requires", "weights", *(["tokenizer"] if kind == "prior" else []))
    if missing := [key for key in needed if key not in content]:
        raise UserError(f"'{path}' is damaged: it has no {missing[0]}")
    digits = "64 hexadecimal digits"
    wrong = [
        (not isinstance(content["vltok"], str), "vltok must be a version"),
        (not isinstance(content[kind], dict) or "class_path" not in content[kind], f"{kind} must have a class_path"),
        (not _plain(content[kind]), f"{kind} must hold words, numbers, lists and keys alone"),
        (not _all(content["requires"], _required), "requires must list distributions and versions"),
        (
            not _is(content["weights"], sha256=_hash, size=_size),
            f"weights must have a size and a sha256 of {digits}",
        ),
    ]
    for told in ("summary", "figures", "provenance"):  # bundles of version 0.1.0 have none of them
        wrong.append((not isinstance(content.get(told, {}), dict), f"{told} must hold keys and values"))
    if kind == "prior":
        named = _is(content["tokenizer"], fingerprint=_hash, places=lambda places: _all(places, _text))
        wrong.append((not named, f"tokenizer must have places and a fingerprint of {digits}"))
        wrong.append((not _all(content.get("classes", []), _text), "classes must list names"))
    for is_wrong, problem in wrong:
        if is_wrong:
            raise UserError(f"'{path}' is damaged: {problem}")


def _check_installed(folder: Path, requires: list[dict[str, str]]) -> None:
    for required in requires:
        try:
            importlib.metadata.version(required["distribution"])
        except importlib.metadata.PackageNotFoundError as error:
            # anybody may have chosen the name: it is shown as data, and never as a command to give
            raise UserError(
                f"bundle '{folder}' claims to need a distribution called {required['distribution']!r}, version "
                f"{required['version']}, which is not installed; the name is the bundle's own word: see who publishes "
                "it before you install it"
            ) from error


def _plain(tree: Any) -> bool:
    try:
        json.dumps(tree, sort_keys=True)
    except (TypeError, ValueError):
        return False
    return True


def _is(value: Any, **checks: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(key in value and check(value[key]) for key, check in checks.items())


def _all(values: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(check(value) for value in values)


def _required(value: Any) -> bool:
    return _is(value, distribution=_matches(_DISTRIBUTION), version=_matches(_VERSION))


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_hash = _matches(_HASH)


def _size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)
