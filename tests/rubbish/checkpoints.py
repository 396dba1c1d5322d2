"""Rubbish in checkpoints: those of a run, and those of other projects."""

import random
from pathlib import Path

import torch
import yaml

from .canaries import Canary
from .cases import Case
from .values import mutated, short, spoil_bytes


def checkpoint(draw: random.Random, folder: Path) -> Case:
    """A run folder with something wrong in it that is to go on; or the checkpoint of another project."""
    if draw.random() < 0.35:
        return _foreign(draw, folder)
    run = folder / "runs" / draw.choice(["tokenizer", "prior"])
    path = run / "checkpoints" / "last.ckpt"
    how = draw.choice(["bytes", "pickle", "state", "config", "other", "gone"])
    what = how
    if how == "bytes":
        what = spoil_bytes(draw, path)
    elif how == "pickle":
        torch.save({"state_dict": {}, "x": Canary()}, path)
    elif how == "state":
        what = _spoil_state(draw, path)
    elif how == "config":
        what, tree = mutated(draw, yaml.safe_load((run / "config.yaml").read_text()))
        (run / "config.yaml").write_text(yaml.safe_dump(tree))
    elif how == "other":
        other = folder / "runs" / ("prior" if run.name == "tokenizer" else "tokenizer")
        path.write_bytes((other / "checkpoints" / "last.ckpt").read_bytes())
        what = "the checkpoint of another model"
    else:
        path.unlink()
    steps = draw.choice([["--trainer.max_steps=3"], []])
    command = ("fit", "--resume", f"--out=runs/{run.name}", *steps)
    return Case(f"{run.name}: {what}", command, goes_on=f"runs/{run.name}")


def _spoil_state(draw: random.Random, path: Path) -> str:
    state = torch.load(path, weights_only=True)
    key = draw.choice(list(state))
    if draw.random() < 0.3:
        del state[key]
        what = f"{key} is gone"
    elif key == "state_dict" or draw.random() < 0.3:
        name = draw.choice(list(state["state_dict"]))
        state["state_dict"][name] = draw.choice([torch.zeros(3), torch.full((1,), float("nan")), "text", None])
        what = f"{name} is strange"
    else:
        state[key] = draw.choice([None, 3, "text", [], {}, -1, float("nan"), {"a": 1}])
        what = f"{key} is {short(state[key])}"
    torch.save(state, path)
    return what


def _foreign(draw: random.Random, folder: Path) -> Case:
    """The files of an importer."""
    config, weights = folder / "foreign.yaml", folder / "foreign.ckpt"
    model = {"params": {"embed_dim": 8, "n_embed": 16, "ddconfig": {"ch": 8, "ch_mult": [1, 2], "z_channels": 8}}}
    what, tree = mutated(draw, {"model": {"target": "taming.models.vqgan.VQModel", **model}})
    config.write_text(yaml.safe_dump(tree))
    tensors = {"state_dict": {"quantize.embedding.weight": torch.zeros(16, 8)}}
    torch.save(draw.choice([tensors, {}, [], {"x": Canary()}, torch.zeros(3), None, {"state_dict": 3}]), weights)
    if draw.random() < 0.4:
        what = spoil_bytes(draw, draw.choice([config, weights]))
    name = draw.choice(["taming-transformers", "dynamic-vector-quantization", "stack-gpt"])
    given = draw.choice(["foreign.ckpt", "nowhere.ckpt", "foreign.yaml", "pictures", ""])
    given = draw.choice([given, "foreign.ckpt", "foreign.ckpt", "foreign.ckpt"])
    return Case(f"{name}: {what}", ("import", given, f"--from={name}", "--config=foreign.yaml", "--out=out/bundle"))
