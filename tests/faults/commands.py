"""The commands that faults happen to; each lacks only where it writes."""

from __future__ import annotations

from pathlib import Path

DATA = ("--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.val_share=0.3")
FIT = ("fit", "--config=tokenizer.yaml")
FIT_PRIOR = ("fit", "--config=prior.yaml")
TOKENIZE = ("tokenize", "--tokenizer=tokenizer", "--shard-size=8", *DATA)
SAMPLE = ("sample", "--prior=runs/prior/bundle", "--count=6", "--shard-size=2", "--device=cpu")
DETOKENIZE = ("detokenize", "codes/train", "--tokenizer=tokenizer")
RECONSTRUCT = ("reconstruct", "pictures", "--tokenizer=tokenizer")
EVALUATE = ("evaluate", "--tokenizer=tokenizer", *DATA)
EVALUATE_PRIOR = ("evaluate", "--prior=runs/prior/bundle", "--count=8", *DATA)
PACK = ("pack", "pictures", "--count=10", "--workers=1")
ABLATE = ("ablate", "table", "--seeds=0")
COMPARE = ("compare", "evaluated")
NEW = ("new", "gate", "mine")
ALL = (FIT, FIT_PRIOR, TOKENIZE, SAMPLE, DETOKENIZE, RECONSTRUCT, EVALUATE, PACK, ABLATE, COMPARE, NEW)


def verb(command: tuple[str, ...]) -> str:
    """What the table calls a command."""
    names = {FIT: "fit (tokenizer)", FIT_PRIOR: "fit (prior)", EVALUATE_PRIOR: "evaluate (prior)"}
    return names.get(command, command[0])


def to(out: Path | str, command: tuple[str, ...]) -> list[str]:
    """A command that writes to a folder."""
    return [*command, str(out)] if command[0] == "pack" else [*command, f"--out={out}"]
