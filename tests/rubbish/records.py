"""Rubbish in the records of evaluations and the logs of runs."""

import json
import random
from pathlib import Path

import yaml

from .cases import Case
from .values import PLAIN, mutated, spoil_bytes, to_json


def record(draw: random.Random, folder: Path) -> Case:
    """The record of an evaluation, or the log of a run, with something wrong in it."""
    path = folder / "evaluated" / "jpeg-20" / "metrics.json"
    how = draw.choice(["tree", "tree", "tree", "tree", "bytes", "log", "run", "gone"])
    if how == "tree":
        what, tree = mutated(draw, json.loads(path.read_text()), PLAIN)
        path.write_text(to_json(tree))
    elif how == "bytes":
        what = spoil_bytes(draw, path)
    elif how == "log":
        what = spoil_bytes(draw, next((folder / "runs" / "tokenizer" / "logs").glob("events*")))
    elif how == "run":
        config = folder / "runs" / "tokenizer" / "config.yaml"
        what, tree = mutated(draw, yaml.safe_load(config.read_text()))
        config.write_text(yaml.safe_dump(tree))
    else:
        what = "gone"
        path.unlink()
    (folder / "runs" / "tokenizer" / "evaluation").symlink_to("../../evaluated/jpeg-20")
    others = draw.choice([["evaluated/jpeg-60"], ["evaluated/jpeg-60"], [], ["runs/prior"]])
    runs = ["evaluated/jpeg-20"] if how in ("tree", "bytes", "gone") else ["runs/tokenizer"]
    return Case(f"a record: {what}", ("compare", *runs, *others, "--out=out"))
