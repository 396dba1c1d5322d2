"""Runs the benchmarks, and prints a line as soon as it is measured; the table is written where one asks for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from .table import Setting, markdown

#: Each is a module with a function `rows`.
BENCHMARKS = ("startup", "search", "codec", "tokenizing", "training", "sampling", "growth", "memory", "field")
#: What takes minutes on two CPU cores is told before it begins.
MINUTES = {"codec": 3, "tokenizing": 4, "training": 3, "sampling": 8, "growth": 2}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", default=BENCHMARKS, help=f"which, of {', '.join(BENCHMARKS)}; all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=5, help="how often each work is timed, at most")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds, and tell nothing")
    parser.add_argument("--full", action="store_true", help="search a million vectors on a CPU too: eight minutes")
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.only) - set(BENCHMARKS)):
        parser.error(f"no benchmark is called {unknown[0]}; there are {', '.join(BENCHMARKS)}")
    setting = Setting(options.device, options.tiny, options.turns, options.full or options.device == "cuda")
    torch.manual_seed(0)
    measured = []
    for benchmark in options.only:
        if benchmark in MINUTES and not options.tiny and options.device == "cpu":
            print(f"{benchmark}: about {MINUTES[benchmark]} minutes on two cores", file=sys.stderr, flush=True)
        for row in import_module(f".{benchmark}", __package__).rows(setting):
            measured.append(row)
            print(" | ".join(row.cells()), flush=True)
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(markdown(measured, setting), encoding="utf-8")
    print("\n" + markdown(measured, setting))


if __name__ == "__main__":
    main()
