"""The options of the verbs. A verb's function declares them: its signature and its docstring are read, not imported.

Importing a verb loads torch, for which `--help` and the message about a wrong option do not wait.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import inspect
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from vltok.drawing.config import SamplingConfig, SamplingOptions
from vltok.errors import UserError
from vltok.evaluation.codecs import Codec
from vltok.files import check_folder
from vltok.io.recipes import read
from vltok.registry import components

#: The types that the command line can give.
_PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "Codec": Codec}
#: What some options mean on the command line, whatever the functions say.
_MEANINGS = {
    "trust": "let bundles run any Python code that they name, and fetch what they name: as if you started a program of "
    "whoever wrote them; without it they may name registered components alone",
    "rate": "how many codes pictures get, whatever the tokenizer was trained for: codes=400 for each, max-codes=400 at "
    "most, mean-codes=400 over those that are encoded together, bpp=0.2 bits a pixel, psnr=30, ssim=0.9 or lpips=0.2 "
    "for the fewest that reach it, or ratios=8:0.5,16:0.5 (a prior draws at codes, max-codes and ratios); "
    "codes=400,measured tries by decoding what codes gain, slow and best",
    "data": "the pictures, by default the embedded photographs; its batch_size and workers count here too",
}


def verb_parser(function: str, *positional: str, prog: str = "", **how: Any) -> ArgumentParser:
    """A parser of what the function of a verb takes.

    Args:
        function: Its name, which is that of its module.
        positional: The arguments that are given without their names.
        prog: The name of the verb; the function's by default.
        how: The other arguments of `add_options`.
    """
    parser = ArgumentParser(prog=f"vltok {prog or function}", description=description(function), exit_on_error=False)
    add_options(parser, function, *positional, **how)
    return parser


def description(function: str) -> str:
    """What the function of a verb does."""
    return _shown(docstring_parser.parse(ast.get_docstring(_declaration(function)) or "").description or "", {})


def add_options(
    parser: ArgumentParser,
    function: str,
    *positional: str,
    required: Collection[str] = (),
    left_out: Collection[str] = (),
    valued: Collection[str] = (),
    arguments: Sequence[str] = (),
) -> None:
    """Add the options that the function of a verb declares; what only Python can give, such as objects, is none.

    Args:
        parser: Whose they become.
        function: The name of the function.
        positional: The arguments that are given without their names.
        required: Those that must be given though the function does without.
        left_out: Those that are no options.
        valued: Those that a value may follow, as `ablate` gives them: `--lpips` and `--lpips true` are the same.
        arguments: The command line, where the function takes `data`.
    """
    declared = _declaration(function)
    documented = docstring_parser.parse(ast.get_docstring(declared) or "").params
    means = {entry.arg_name: entry.description or "" for entry in documented} | _MEANINGS
    options = {name: name.upper() if name in positional else f"--{name.replace('_', '-')}" for name in means}
    for name, annotation, default in _parameters(declared):
        types, several = _types(annotation)
        if name == "data":
            _add_data(parser, arguments)
        elif types and name not in (*left_out, "token"):  # a secret on a command line is one no more
            meaning = _shown(means[name], options).rstrip(".")
            kept: dict[str, Any] = {"help": f"{meaning[:1].lower()}{meaning[1:]}"}
            if types == [bool] and default is False and name not in valued:
                kept |= {"action": "store_true"}
            else:
                needed = default is inspect.Parameter.empty or name in required
                types = [each for each in types if not (needed and each is NoneType)]
                kept |= {"type": functools.reduce(operator.or_, types)}
                kept |= {"nargs": "+" if name in positional else "*"} if several else {}
                kept |= {"nargs": "?", "const": True} if types == [bool] and name in valued else {}
                if name not in positional:
                    default = list(default) if isinstance(default, tuple) else default
                    kept |= {"required": True} if needed else {"default": default}
            parser.add_argument(name if name in positional else options[name], **kept)


def keywords(options: Namespace, *left_out: str) -> dict[str, Any]:
    """The options as arguments of the verb's function, some left out."""
    return {name: value for name, value in options.as_dict().items() if name not in left_out}


def check_apart_from_pictures(options: Namespace) -> None:
    """See that `--out` lies in no folder that `--data` reads.

    Raises:
        UserError: It does, or it takes no files.
    """
    out = check_folder("--out", options.out).resolve()
    for name in ("root", "val_root"):
        root = options.data.init_args.get(name)
        if isinstance(root, str) and out.is_relative_to(Path(root).resolve()):
            raise UserError(f"--out '{options.out}' lies in data.{name} '{root}', whose pictures it would join")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether the help of a verb is asked for."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def sampling_options(arguments: Sequence[str]) -> type[SamplingOptions]:
    """The options of the prior that a command line names; all of vltok's own where it is not known yet."""
    peek = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    peek.add_argument("--prior")
    peek.add_argument("--config", action="append", default=[])
    peek.add_argument("--trust", action="store_true")
    # what is wrong is said where the arguments are parsed and the prior is loaded
    with contextlib.suppress(argparse.ArgumentError, UserError):
        named, _ = peek.parse_known_args(arguments)
        prior = named.prior or next(filter(None, (read(path).get("prior") for path in reversed(named.config))), None)
        # help downloads nothing
        if isinstance(prior, str) and (Path(prior).is_dir() or not asks_for_help(arguments)):
            from vltok.io.bundles import options_of_prior

            return options_of_prior(prior, trust=named.trust)
    return SamplingConfig


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
    """The arguments with the embedded photographs where no data is named.

    As a default of the parser, jsonargparse would carry their arguments over to every class that takes their place.

    Raises:
        UserError: They have an option of a source that they do not name.
    """
    options = [argument.partition("=")[0] for argument in arguments]
    if not {"--data", "--data.class_path", "--config"}.isdisjoint(options):
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


def _add_data(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Add `--data`, which names a source of pictures; the help of a verb tells of it without importing any."""
    meaning = _MEANINGS["data"]
    if asks_for_help(arguments):
        lists = "'vltok plugins data' lists them, and 'vltok plugins NAME' the options --data.… of one"
        parser.add_argument("--data", metavar="NAME", help=f"{meaning}; {lists}")
        return
    from vltok.pictures.images import ImageData

    parser.add_subclass_arguments(ImageData, "data", required=True, help=meaning)


@functools.cache
def _declaration(function: str) -> ast.FunctionDef:
    tree = ast.parse(Path(__file__).with_name(f"{function}.py").read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)


def _parameters(declared: ast.FunctionDef) -> Iterator[tuple[str, ast.expr, Any]]:
    """The name, the annotation and the default of each argument."""
    missing = [None] * (len(declared.args.args) - len(declared.args.defaults))
    defaults = [*missing, *declared.args.defaults, *declared.args.kw_defaults]
    for argument, default in zip([*declared.args.args, *declared.args.kwonlyargs], defaults, strict=True):
        assert argument.annotation is not None
        given = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        yield argument.arg, argument.annotation, given


def _types(annotation: ast.expr) -> tuple[list[Any], bool]:
    """The types of an annotation that a command line can give, and whether it takes several values of them."""
    match annotation:
        case ast.Name(name) if name in _PLAIN:
            return [_PLAIN[name]], False
        case ast.Subscript(ast.Name("Literal"), choices):
            return [Literal[ast.literal_eval(choices)]], False
        case ast.Subscript(ast.Name("Sequence"), item):
            return _types(item)[0] or [str], True
        case ast.BinOp(left, ast.BitOr(), ast.Constant(None)):
            types, several = _types(left)
            return [*types, NoneType] if types and not several else types, several
        case ast.BinOp(left, ast.BitOr(), right):
            of_one = [types for types, several in (_types(left), _types(right)) if types and not several]
            return ([each for types in of_one for each in types], False) if of_one else _types(right)
    return [], False


def _shown(text: str, options: Mapping[str, str]) -> str:
    """What a docstring says, as the command line does: options by their names there, other names in quotes.

    What it says from ``in Python`` on is not for the command line.
    """
    plain = re.split(r"[;.] in Python\b", " ".join(text.split()), maxsplit=1, flags=re.IGNORECASE)[0].replace("%", "%%")
    return re.sub(r"`+([^`]+)`+", lambda found: options.get(found[1], f"'{found[1]}'"), plain)
