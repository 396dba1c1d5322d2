"""`python -m vltok_ray`: what `vltok tokenize --config` writes, by a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import vltok_ray
from vltok.errors import UserError, first_line, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: What follows its name; by default those of the process.

    Returns:
        The exit code: 0 success, 1 an error, 2 wrong arguments, 130 interrupted.
    """
    parser = argparse.ArgumentParser("python -m vltok_ray", description="Export code sequences by a Ray cluster.")
    parser.add_argument("config", type=Path, help="a YAML file with options of 'vltok tokenize', as its --config takes")
    parser.add_argument("--parts", type=int, required=True, help="how many tasks there are; several for each GPU")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a task; with 0.5 two share one (default: 0)")
    parser.add_argument("--cpus", type=float, default=1, help="cores of a task (default: 1)")
    parser.add_argument("--retries", type=int, default=3, help="how often Ray starts a task again (default: 3)")
    parser.add_argument("--tokenizer", help="another tokenizer's bundle than the file names")
    parser.add_argument("--out", help="another folder for the shards than the file names")
    given = {key: value for key, value in vars(parser.parse_args(argv)).items() if value is not None}
    config, parts = given.pop("config"), given["parts"]
    try:
        options = {**_read(config), **given}
        for key in ("tokenizer", "data", "out"):
            if key not in options:
                raise UserError(f"{config} does not say '{key}'")
        folder = vltok_ray.tokenize(**options, progress=lambda done, _: print(f"{done} of {parts} parts", flush=True))
    except KeyboardInterrupt:
        print("vltok_ray: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"vltok_ray: error: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"written to {folder}")
    return 0


def _read(path: Path) -> dict[str, Any]:
    """The options of a file.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path} holds no options of 'vltok tokenize', such as 'tokenizer: runs/quickstart/bundle'")
    return found


if __name__ == "__main__":
    sys.exit(main())
