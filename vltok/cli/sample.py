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
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import docstring_parser
from jsonargparse import ArgumentParser

from vltok.cli.options import DEVICE, OVERWRITE, TRUST, asks_for_help, keywords
from vltok.cli.progress import shown, whose_part
from vltok.drawing.config import SamplingConfig, SamplingOptions, options_for
from vltok.errors import UserError
from vltok.io.recipes import parse_options

_DESCRIPTION = """\
Draw pictures: a prior draws code sequences, its tokenizer decodes them. Killed at any moment and given again, the same
command goes on from the last whole shard. A seed draws the same pictures in batches and shards of any size. Under
torchrun or srun, each process takes its part.
"""


def run(arguments: list[str]) -> None:
    """Run `vltok sample` with what follows the verb.

    Raises:
        UserError: An argument is wrong, the prior or its tokenizer cannot be loaded, or nothing can be written.
    """
    kind = _options_of_prior(arguments)
    options = parse_options(_parser(kind), arguments)
    from vltok.verbs.sample import sample

    shared, own = ([field.name for field in fields(options_class)] for options_class in (SamplingConfig, kind))
    sampling = options_for(kind, "this prior", SamplingConfig(**{name: options[name] for name in shared}))
    sampling = replace(sampling, **{name: options[name] for name in own})
    start = time.monotonic()
    with shown(f"sample{whose_part()}") as progress:
        found = sample(**keywords(options, *shared, *own), sampling=sampling, progress=progress)
    if found.manifest is None:
        print(f"{whose_part().strip(', ')} is done; the last one to end writes the grid")
        return
    length = found.manifest.statistics["length"]
    speed = f", {found.drawn / (time.monotonic() - start):.2f} images/s" if found.drawn else ""
    print(
        f"{options.count} pictures of {length['mean']:.1f} codes (from {length['minimum']} to {length['maximum']})"
        f"{speed}; written to {options.out}"
    )


def _options_of_prior(arguments: list[str]) -> type[SamplingOptions]:
    """The options of the prior that a command line names; all of vltok's own where it is not known yet."""
    peek = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    peek.add_argument("--prior", type=str)
    peek.add_argument("--trust", action="store_true")
    try:
        named, _ = peek.parse_known_args(arguments)
        # help downloads nothing
        if named.prior is not None and (Path(named.prior).is_dir() or not asks_for_help(arguments)):
            from vltok.io.bundles import options_of_prior

            return options_of_prior(named.prior, trust=named.trust)
    except (argparse.ArgumentError, UserError):
        pass  # said where the arguments are parsed and the prior is loaded
    return SamplingConfig


def _parser(kind: type[SamplingOptions]) -> ArgumentParser:
    parser = ArgumentParser(prog="vltok sample", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--prior", type=str, required=True, help="a prior's bundle: a folder, or user/name")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives everything")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    parser.add_argument("--count", type=int, default=16, help="how many pictures to draw; more can be added")
    parser.add_argument("--seed", type=int, default=0, help="sets the random numbers")
    parser.add_argument("--labels", type=str | None, help="classes, in turn: 207,fruit, or all (the default), or none")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures that are drawn at the same time")
    own = {field.name: field for field in fields(kind)}
    explained = {
        entry.arg_name: " ".join((entry.description or "").split()).replace("%", "%%")
        for described in reversed(kind.__mro__)
        for entry in docstring_parser.parse(described.__doc__ or "").params
    }
    types = {**typing.get_type_hints(SamplingConfig), **typing.get_type_hints(kind)}
    # those of other priors are known, to be refused by name
    for name, field in {**{field.name: field for field in fields(SamplingConfig)}, **own}.items():
        help_text = explained.get(name) if name in own else argparse.SUPPRESS
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=types[name], default=field.default, help=help_text)
    parser.add_argument("--tokenizer", type=str | None, help="its bundle, if not where the prior's bundle says")
    parser.add_argument("--coding-maps", type=bool, default=True, help="whether to draw them")
    parser.add_argument("--format", type=Literal["webdataset", "parquet"], default="webdataset", help="of the codes")
    parser.add_argument("--shard-size", type=int, default=500, help="sequences of a shard")
    parser.add_argument("--device", type=str | None, help=DEVICE)
    return parser
