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

import time
import typing
from dataclasses import fields
from typing import Literal

import docstring_parser
from jsonargparse import ArgumentParser

from vltok.cli.options import DEVICE, OVERWRITE, TRUST, keywords
from vltok.cli.progress import shown, whose_part
from vltok.interfaces import SamplingConfig
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
    options = parse_options(_parser(), arguments)
    from vltok.verbs.sample import sample

    names = [field.name for field in fields(SamplingConfig)]
    sampling = SamplingConfig(**{name: options[name] for name in names})
    start = time.monotonic()
    with shown(f"sample{whose_part()}") as progress:
        found = sample(**keywords(options, *names), sampling=sampling, progress=progress)
    if found.manifest is None:
        print(f"{whose_part().strip(', ')} is done; the last one to end writes the grid")
        return
    length = found.manifest.statistics["length"]
    speed = f", {found.drawn / (time.monotonic() - start):.2f} images/s" if found.drawn else ""
    print(
        f"{options.count} pictures of {length['mean']:.1f} codes (from {length['minimum']} to {length['maximum']})"
        f"{speed}; written to {options.out}"
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vltok sample", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--prior", type=str, required=True, help="a prior's bundle: a folder, or user/name")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--out", type=str, required=True, help="the folder that receives everything")
    parser.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    parser.add_argument("--count", type=int, default=16, help="how many pictures to draw; more can be added")
    parser.add_argument("--seed", type=int, default=0, help="sets the random numbers")
    parser.add_argument("--labels", type=str | None, help="classes, in turn: 207,fruit, or all (the default), or none")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures that are drawn at the same time")
    explained = {entry.arg_name: entry.description for entry in docstring_parser.parse(SamplingConfig.__doc__).params}
    types = typing.get_type_hints(SamplingConfig)
    for field in fields(SamplingConfig):
        option = f"--{field.name.replace('_', '-')}"
        help_text = " ".join(explained[field.name].split()).replace("%", "%%")
        parser.add_argument(option, type=types[field.name], default=field.default, help=help_text)
    parser.add_argument("--tokenizer", type=str | None, help="its bundle, if not where the prior's bundle says")
    parser.add_argument("--coding-maps", type=bool, default=True, help="whether to draw them")
    parser.add_argument("--format", type=Literal["webdataset", "parquet"], default="webdataset", help="of the codes")
    parser.add_argument("--shard-size", type=int, default=500, help="sequences of a shard")
    parser.add_argument("--device", type=str | None, help=DEVICE)
    return parser
