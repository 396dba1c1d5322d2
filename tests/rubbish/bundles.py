"""Rubbish in bundles."""

import pickle
import random
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from vltok.files import sha256_of

from .canaries import CANARY, Canary
from .cases import Case
from .sound import PICTURES
from .values import mutated, spoil_bytes


def bundle(draw: random.Random, folder: Path) -> Case:
    """A bundle with something wrong in it, and a verb that loads it."""
    kind = draw.choice(["tokenizer", "prior"])
    root = folder / "runs" / kind / "bundle"
    what = draw.choice(
        [_spoil_config, _spoil_config, _spoil_config, _spoil_weights, _spoil_weights, _spoil_weight_bytes]
    )(draw, root)
    (folder / "canary.py").write_text(f"open({CANARY!r}, 'w')\nclass X:\n    pass\n")
    tokenizer, prior, out = "--tokenizer=runs/tokenizer/bundle", "--prior=runs/prior/bundle", "--out=out"
    given = f"runs/{kind}/bundle"
    commands = {
        "tokenizer": (
            ("reconstruct", "pictures/cat/001.png", tokenizer, out),
            ("tokenize", tokenizer, out, *PICTURES),
            ("detokenize", "codes/val", tokenizer, out),
            ("evaluate", tokenizer, out, *PICTURES),
        ),
        "prior": (
            ("sample", prior, "--count=2", out),
            ("evaluate", prior, "--count=2", out, *PICTURES, "--data.val_share=0.3"),
        ),
    }
    others = (("info", given), ("export", given, "out", "--to=diffusers"), ("push", given, "user/name"))
    return Case(f"{kind}: {what}", draw.choice(commands[kind] + others))


def _spoil_config(draw: random.Random, root: Path) -> str:
    path = root / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    kind = tree["kind"]
    how = draw.random()
    if how < 0.15:
        return spoil_bytes(draw, path)
    if how < 0.3:
        wrong = draw.choice(
            ["canary.X", "os.system", "builtins.eval", "torch.nn.Linear", "nope", "vltok.nope.X", "..", ""]
        )
        part = draw.choice(
            [tree[kind], *(value for value in tree[kind]["init_args"].values() if isinstance(value, dict))]
        )
        part["class_path"] = wrong
        what = f"a part is {wrong}"
    elif how < 0.4:
        tree["requires"].append(
            draw.choice([{"distribution": "evil; rm -rf ~", "version": "1"}, {}, "x", {"distribution": None}])
        )
        what = "it requires something strange"
    else:
        what, tree = mutated(draw, tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8", errors="surrogatepass")
    return f"config.yaml: {what}"


def _spoil_weights(draw: random.Random, root: Path) -> str:
    """Other weights, with which the hash agrees."""
    path = root / "model.safetensors"
    tensors = load_file(path)
    floats = [name for name, value in tensors.items() if value.is_floating_point()]
    name = draw.choice(floats if draw.random() < 0.8 else list(tensors))
    value = tensors[name]
    what, spoilt = draw.choice(
        [
            ("another shape", value.reshape(-1)[:1]),
            ("transposed", value.T.contiguous() if value.ndim == 2 else value[None]),
            ("half", value.half()),
            ("whole numbers", value.to(torch.int64)),
            ("NaN", torch.full_like(value, float("nan")) if value.is_floating_point() else value),
            ("infinite", torch.full_like(value, float("inf")) if value.is_floating_point() else value),
            ("empty", value[:0] if value.ndim else value),
            ("gone", None),
            ("complex", value.to(torch.complex64)),
        ]
    )
    if spoilt is None:
        del tensors[name]
    else:
        tensors[name] = spoilt
    if draw.random() < 0.1:
        tensors[draw.choice(["strange", "\x1b[31m", "x" * 900])] = torch.zeros(3)
    save_file(tensors, path)
    _resign_bundle(root)
    return f"{name} is {what}"


def _spoil_weight_bytes(draw: random.Random, root: Path) -> str:
    path = root / "model.safetensors"
    if draw.random() < 0.2:
        path.write_bytes(pickle.dumps(Canary()))
        what = "a pickle"
    elif draw.random() < 0.2:
        path.rename(root / "pytorch_model.bin")
        return "the weights have another name"
    else:
        what = spoil_bytes(draw, path)
    if draw.random() < 0.6:
        _resign_bundle(root)
        what += ", and the hash fits"
    return what


def _resign_bundle(root: Path) -> None:
    path = root / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    weights = root / "model.safetensors"
    tree["weights"] = {"sha256": sha256_of(weights), "size": weights.stat().st_size}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
