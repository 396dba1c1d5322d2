"""Rubbish in code shards, their manifest and their index."""

import io
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np

from vltok.files import sha256_of

from .canaries import Canary, canary_array
from .cases import Case
from .sound import PICTURES
from .values import LABELS, PLAIN, mutated, mutated_bytes, spoil_bytes, to_json


def codes(draw: random.Random, folder: Path) -> Case:
    """A folder of codes with something wrong in it, and a verb that reads it."""
    name = draw.choice(["train", "val", "parquet"])
    root = folder / "codes" / name
    how = draw.choice(
        ["manifest", "manifest", "manifest", "manifest bytes", "shard bytes", "index", "member", "unfinished", "gone"]
    )
    what = {
        "manifest": _spoil_manifest,
        "manifest bytes": lambda draw, root: spoil_bytes(draw, root / "codes.json"),
        "shard bytes": _spoil_shard,
        "index": _spoil_index,
        "member": _spoil_member,
        "unfinished": _spoil_unfinished,
        "gone": _remove_one,
    }[how](draw, root)
    tokenizer, out = "--tokenizer=runs/tokenizer/bundle", "--out=out"
    fit = ("fit", "--config=prior.yaml", out)
    commands = [("detokenize", f"codes/{name}", tokenizer, out)] * 2
    commands += [fit] * 2 if name != "parquet" else [(*fit, "--data.root=codes/parquet")]
    if name == "val":
        commands += [("evaluate", "--prior=runs/prior/bundle", "--count=3", out, *PICTURES, "--data.val_share=0.3")]
    going_on = ("tokenize", tokenizer, f"--out=codes/{name}", "--shard-size=4", *PICTURES)
    split = [f"--split={name}"] if name != "parquet" else ["--format=parquet"]
    commands += [(*going_on, "--data.val_share=0.3", *split)]
    if how == "unfinished":
        commands = commands[-1:]
    return Case(f"codes/{name}: {what}", draw.choice(commands), goes_on=f"codes/{name}")


def _spoil_manifest(draw: random.Random, root: Path) -> str:
    path = root / "codes.json"
    what, tree = mutated(draw, json.loads(path.read_text()), PLAIN)
    path.write_text(to_json(tree))
    return f"codes.json: {what}"


def _shards(root: Path) -> list[Path]:
    return sorted([*root.glob("*.tar"), *root.glob("*.parquet")])


def _spoil_shard(draw: random.Random, root: Path) -> str:
    path = draw.choice(_shards(root))
    what = spoil_bytes(draw, path)
    if draw.random() < 0.6:
        _resign(root, path)
        what += ", and the manifest fits"
    return what


def _resign(root: Path, path: Path) -> None:
    """Let the manifest speak of a shard as it is now."""
    manifest = json.loads((root / "codes.json").read_text())
    for entry in manifest["shards"]:
        if entry["name"] == path.name:
            entry |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    (root / "codes.json").write_text(json.dumps(manifest))


def _spoil_index(draw: random.Random, root: Path) -> str:
    path = root / "codes.index.npy"
    if not path.is_file():
        return _spoil_shard(draw, root)
    index = np.load(path)
    huge = np.iinfo(np.int64).max
    what, content = draw.choice(
        [
            ("floats", _npy(index.astype(np.float64))),
            ("text", _npy(index.astype("U"))),
            ("flat", _npy(index.ravel())),
            ("of two columns", _npy(index[:, :2])),
            ("of nothing", _npy(index[:0])),
            ("short", _npy(index[:-1])),
            ("long", _npy(np.concatenate([index, index]))),
            ("negative", _npy(-index)),
            ("huge", _npy(np.full_like(index, huge))),
            ("zeros", _npy(np.zeros_like(index))),
            ("objects", canary_array()),
            ("a pickle", pickle.dumps(Canary())),
            ("other places", _npy(index + np.array([1, 0, 0]))),
            ("other sizes", _npy(index + np.array([0, 512, 0]))),
            ("other lengths", _npy(index + np.array([0, 0, 1]))),
            ("no array", b"rubbish"),
        ]
    )
    path.write_bytes(content)
    if draw.random() < 0.8:
        manifest = json.loads((root / "codes.json").read_text())
        manifest["index_sha256"] = sha256_of(path)
        (root / "codes.json").write_text(json.dumps(manifest))
    return f"the index is {what}"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _spoil_member(draw: random.Random, root: Path) -> str:
    """Something wrong in one member of a tar shard, with which the manifest and the index agree."""
    if (root / "codes.index.npy").is_file() is False:
        return _spoil_shard(draw, root)
    path = draw.choice(_shards(root))
    with tarfile.open(path) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    place = draw.randrange(len(members))
    name, content = members[place]
    if name.endswith("npy"):
        array = np.load(io.BytesIO(content))
        what, content = draw.choice(
            [
                ("floats", _npy(array.astype(np.float32))),
                ("nan", _npy(np.full_like(array, np.nan, dtype=np.float64))),
                ("negative", _npy(-1 - array.astype(np.int64))),
                ("too large", _npy(array.astype(np.uint64) + 2**63)),
                ("a little too large", _npy(array.astype(np.int64) + 16)),
                ("of nothing", _npy(array[:0])),
                ("a number", _npy(np.array(3))),
                ("deeper", _npy(array[None])),
                ("flat", _npy(array.ravel())),
                ("text", _npy(array.astype("U"))),
                ("complex", _npy(array.astype(complex))),
                ("dates", _npy(array.astype("M8[s]"))),
                ("objects", canary_array()),
                ("short", _npy(array[:-1])),
                ("long", _npy(np.concatenate([array, array]))),
                ("a header alone", content[:64]),
                ("a header that promises much", content.replace(b"(", b"(99999999999,", 1)),
            ]
        )
    else:
        what, content = draw.choice(
            [("strange", draw.choice(LABELS)), ("cut", content[:-1]), ("noise", draw.randbytes(9))]
        )
    renamed = draw.random() < 0.2
    if renamed:
        name = draw.choice(
            [
                "x.ids.npy",
                name.replace("ids", "idz"),
                name.replace("key.txt", "key.tx"),
                "",
                name[1:],
                "9" * 30 + ".ids.npy",
            ]
        )
        what = f"{what}, called {name}"
    members[place] = (name, content)
    index, offsets = np.load(root / "codes.index.npy"), []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, inside in members:
            offsets.append(archive.offset)
            header = tarfile.TarInfo(member)
            header.size = len(inside)
            archive.addfile(header, io.BytesIO(inside))
        offsets.append(archive.offset)
    count = len(members) // 4
    first = sum(1 for other in _shards(root) if other < path) * 4
    for sample in range(count):
        start, end = offsets[4 * sample], offsets[4 * sample + 4]
        index[first + sample, :2] = start, end - start
    (root / "codes.index.npy").write_bytes(_npy(index))
    manifest = json.loads((root / "codes.json").read_text())
    manifest["index_sha256"] = sha256_of(root / "codes.index.npy")
    (root / "codes.json").write_text(json.dumps(manifest))
    _resign(root, path)
    return f"{members[place][0]} is {what}"


def _spoil_unfinished(draw: random.Random, root: Path) -> str:
    """A folder that a killed process has left, damaged."""
    manifest = json.loads((root / "codes.json").read_text())
    (root / "codes.json").unlink()
    run = {
        "spec": manifest["spec"] | {"regions": None},
        "settings": manifest["settings"],
        "classes": manifest["classes"],
    }
    work = root / ".unfinished"
    work.mkdir()
    what, content = mutated_bytes(draw, json.dumps(run).encode())
    if draw.random() < 0.6:
        what, tree = mutated(draw, run, PLAIN)
        content = to_json(tree).encode()
    (work / "run.json").write_bytes(content)
    return f"run.json {what}"


def _remove_one(draw: random.Random, root: Path) -> str:
    path = draw.choice([path for path in root.iterdir() if path.is_file()])
    path.unlink()
    return f"{path.name} is gone"
