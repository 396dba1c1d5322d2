"""`vltok sample`: pictures that a prior draws.

```
samples/
  pictures/000000.png     what was drawn
  coding_maps/000000.png  where its codes went
  codes/                  the code sequences, as 'vltok tokenize' writes them
  grid.png                the first of them at one look
```
"""

from __future__ import annotations

import argparse
import time
import typing
from collections.abc import Collection
from dataclasses import Field, fields

import docstring_parser
from jsonargparse import ArgumentParser

from vltok.cli.progress import name_of_share, say_done, shown
from vltok.drawing.config import SamplingOptions, every_option, options_for
from vltok.errors import UserError, how_many
from vltok.io.recipes import parse_options
from vltok.verbs.options import keywords, sampling_options, verb_parser


def run(arguments: list[str]) -> None:
    """Run `vltok sample` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the prior or its tokenizer cannot be loaded, or nothing can be written.
    """
    kind = sampling_options(arguments)
    every = every_option(kind)
    parser = verb_parser("sample", required=["out"])
    meaning = "a text that says what is drawn; several are drawn in turn, each with an option of its own"
    parser.add_argument("--prompt", action="append", default=[], help=meaning)
    _add_sampling(parser, every, {field.name for field in fields(kind)})
    options = parse_options(parser, arguments)
    from vltok.verbs.sample import sample

    if options.prompt and options.prompts is not None:
        raise UserError("--prompt and --prompts both say what is drawn: give one of them")
    options.prompts = options.prompt or options.prompts
    names = [field.name for field in _options(every)]
    sampling = options_for(kind, "this prior", every(**{name: options[name] for name in names}))
    start = time.monotonic()
    mine = name_of_share(options.part)
    with shown(", ".join(filter(None, ("sample", mine)))) as progress:
        found = sample(**keywords(options, *names, "prompt"), sampling=sampling, progress=progress)
    if found.manifest is None:
        say_done(mine, found.missing, "writes the grid")
        return
    length = found.manifest.statistics["length"]
    speed = f", {found.drawn / (time.monotonic() - start):.2f} images/s" if found.drawn else ""
    print(
        f"{how_many(options.count, 'picture')} of {length['mean']:.1f} codes (from {length['minimum']} to "
        f"{length['maximum']}){speed}; written to {options.out}"
    )


def _options(kind: type[SamplingOptions]) -> list[Field]:
    """Those that are options of the command line: there, `--size` says the regions in pixels."""
    return [field for field in fields(kind) if field.name != "regions"]


def _add_sampling(parser: ArgumentParser, kind: type[SamplingOptions], shown: Collection[str]) -> None:
    """Add the options of drawing; those of other priors are known, to be refused by name."""
    meanings = {
        entry.arg_name: " ".join((entry.description or "").split()).replace("%", "%%")
        for described in reversed(kind.__mro__)
        for entry in docstring_parser.parse(described.__doc__ or "").params
    }
    types = typing.get_type_hints(kind)
    for field in _options(kind):
        option = f"--{field.name.replace('_', '-')}"
        meaning = meanings.get(field.name) if field.name in shown else argparse.SUPPRESS
        parser.add_argument(option, type=types[field.name], default=field.default, help=meaning)
