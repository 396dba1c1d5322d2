"""`vltok plugins`: what is registered, and what its constructors take."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from vltok.errors import UserError
from vltok.io.inspection import Entry
from vltok.io.recipes import parse_options
from vltok.registry import components, kinds
from vltok.verbs.plugins import plugins


def run(arguments: list[str]) -> None:
    """Print every component by kind, those of one kind, or the arguments of one component."""
    parser = ArgumentParser(prog="vltok plugins", description=__doc__, exit_on_error=False)
    parser.add_argument("what", nargs="*", default=[], help="nothing, KIND, NAME, KIND NAME or KIND/NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parse_options(parser, arguments)
    words = [part for word in given.what for part in word.split("/")]
    if len(words) > 2:
        raise UserError(f"'vltok plugins' takes a kind and a name, not {' '.join(words)}")
    *kind, name = words or [None]
    # one word that is no component's name may be a kind's
    alone = not kind and name in kinds() and not any(each.name == name for of in kinds() for each in components(of))
    entries = plugins(name) if alone else plugins(kind[0] if kind else None, name)
    detailed = bool(words) and not alone
    if given.json:
        shown = [asdict(entry) if detailed else _without_arguments(entry) for entry in entries]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif detailed:
        _print_details(entries)
    else:
        _print_list(entries)


def _without_arguments(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if key != "arguments"}


def _print_list(entries: Sequence[Entry]) -> None:
    for kind, (group, _) in kinds().items():
        rows = [
            (
                entry.name,
                entry.target.replace(":", "."),
                f"{entry.distribution} {entry.version}",
                f"cannot be used: {entry.error}" if entry.error else entry.summary,
            )
            for entry in entries
            if entry.kind == kind
        ]
        if rows:
            _print_table(f"{kind} ({group})", ("name", "class", "distribution", "what it is"), rows)


def _print_details(entries: Sequence[Entry]) -> None:
    for entry in entries:
        title = f"{entry.kind} {entry.name}: {entry.target.replace(':', '.')} of {entry.distribution} {entry.version}"
        if entry.error:
            print(f"{title}\ncannot be used: {entry.error}\n")
            continue
        rows = [
            (argument.name, argument.type, argument.default or "(required)", argument.description)
            for argument in entry.arguments
        ]
        _print_table(f"{title}\n{entry.summary}", ("argument", "type", "default", "meaning"), rows)


def _print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table that folds to the width of a terminal, or lines of unbroken columns for a pipe."""
    if sys.stdout.isatty():
        table = Table(*header, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console(markup=False, highlight=False).print(table, "")
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(title)
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
