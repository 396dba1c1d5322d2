"""`vltok plugins`: what is registered, and what its constructors take."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from vltok.errors import UserError, unknown
from vltok.io.inspection import Entry, inspect_component
from vltok.io.recipes import parse_options
from vltok.registry import Component, components, kinds


def run(arguments: list[str]) -> None:
    """Print every component by kind, those of one kind, or the arguments of one component."""
    parser = ArgumentParser(prog="vltok plugins", description=__doc__, exit_on_error=False)
    parser.add_argument("what", nargs="*", default=[], help="nothing, KIND, NAME, KIND NAME or KIND/NAME")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parse_options(parser, arguments)
    chosen, detailed = _choose([part for word in given.what for part in word.split("/")])
    entries = [inspect_component(component) for component in chosen]
    if given.json:
        shown = [asdict(entry) if detailed else _without_arguments(entry) for entry in entries]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif detailed:
        _print_details(entries)
    else:
        _print_list(entries)


def _choose(words: Sequence[str]) -> tuple[list[Component], bool]:
    """The components that are asked for, and whether to show their arguments."""
    every = [component for kind in kinds() for component in components(kind)]
    if not words:
        return every, False
    if len(words) > 2:
        raise UserError(f"'vltok plugins' takes a kind and a name, not {' '.join(words)}")
    *kind, name = words
    if kind and kind[0] not in kinds():
        raise unknown("kind of component", kind[0], kinds())
    matches = [component for component in every if component.name == name and component.kind in (kind or kinds())]
    if not matches and not kind and name in kinds():
        return [component for component in every if component.kind == name], False
    if not matches:
        names = sorted({component.name for component in every if component.kind in (kind or kinds())})
        raise unknown(kind[0] if kind else "component", name, names if kind else [*names, *kinds()])
    return matches, True


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
