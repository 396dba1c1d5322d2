"""Options that several verbs have, and how they are read. Imports no torch: `--help` is answered without it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from vltok.errors import UserError
from vltok.registry import components

#: What `--overwrite` means, for the verbs that export codes.
OVERWRITE = "replace another export of vltok's in --out, which stays until the new one is whole"
#: What `--trust` means, for every verb that loads a bundle.
TRUST = (
    "let bundles run any Python code that they name, and fetch what they name: as if you started a program of whoever "
    "wrote them; without it they may name registered components alone"
)
DEVICE = "'cpu', 'cuda' or 'cuda:1'; a GPU where there is one"
_DATA = "the pictures, by default the embedded photographs; its batch_size and workers count here too"


def add_data(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Add `--data`, which names a source of pictures; the help of a verb tells of it without importing any."""
    if asks_for_help(arguments):
        parser.add_argument(
            "--data",
            metavar="NAME",
            help=f"{_DATA}; 'vltok plugins data' lists them, and 'vltok plugins NAME' the options --data.… of one",
        )
        return
    from vltok.pictures.images import ImageData

    parser.add_subclass_arguments(ImageData, "data", required=True, help=_DATA)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the help of a verb is asked for."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def keywords(options: Namespace, *left_out: str) -> dict[str, Any]:
    """The options as arguments of the verb's function, some left out."""
    return {name: value for name, value in options.as_dict().items() if name not in ("config", *left_out)}


def with_bundle_path(arguments: Sequence[str], options: Sequence[str] = ("--tokenizer",)) -> list[str]:
    """The arguments with bundles written as paths: recipes would take a bare `--tokenizer bundle` for a name."""
    arguments = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in options and equals:
            arguments[place] = f"{option}={_path(value)}"
        elif option in options and place + 1 < len(arguments):
            arguments[place + 1] = _path(arguments[place + 1])
    return arguments


def with_default_data(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--data` before its own options, and with the embedded photographs where no data is named.

    As a default of the parser, jsonargparse would carry their arguments over to every class that takes their place.

    Raises:
        UserError: They have an option of a source that they do not name.
    """
    options = [argument.partition("=")[0] for argument in arguments]
    if "--data" in options:
        place = options.index("--data")
        first = next((at for at, option in enumerate(options[:place]) if option.startswith("--data.")), place)
        end = place + (1 if "=" in arguments[place] else 2)
        return [*arguments[:first], *arguments[place:end], *arguments[first:place], *arguments[end:]]
    if not {"--data.class_path", "--config"}.isdisjoint(options):
        return list(arguments)
    keys = [option.removeprefix("--data.").split(".")[0] for option in options if option.startswith("--data.")]
    if keys and not asks_for_help(arguments):
        _check_default_takes(keys)
    return ["--data=photos", *arguments]


def _check_default_takes(keys: Sequence[str]) -> None:
    """See that no key is one of another source of pictures than the embedded photographs alone."""
    from vltok.pictures.images import ImageData

    for key in keys:
        owners = []
        for component in components("data"):
            with contextlib.suppress(UserError):  # a plug-in that cannot be used is none that is meant
                source = component.load()
                if issubclass(source, ImageData) and key in inspect.signature(source.__init__).parameters:
                    owners.append(component.name)
        if owners and "photos" not in owners:
            raise UserError(
                f"--data.{key} is an option of {' and '.join(owners)}, but --data, which says where pictures come "
                f"from, is not given: add --data {owners[0]}"
            )


def _path(bundle: str) -> str:
    return bundle if "/" in bundle or bundle.startswith(("-", "~", "$")) else f"./{bundle}"
