"""Rubbish in tar shards of pictures."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

from .cases import Case
from .values import LABELS, mutated_bytes, short


def shard(draw: random.Random, folder: Path) -> Case:
    """A tar shard of pictures with something wrong in it, and a verb that reads it."""
    path = folder / "shards" / "001.tar"
    if draw.random() < 0.35:
        what, content = mutated_bytes(draw, path.read_bytes())
        path.write_bytes(content)
    elif draw.random() < 0.3:
        what, content = _spoilt_classes(draw, folder)
    else:
        what = _rewrite_tar(draw, path)
    data = (
        "--data=webdataset",
        "--data.shards=shards/*.tar",
        "--data.size=16",
        "--data.workers=0",
        "--data.batch_size=4",
    )
    tokenizer, out = "--tokenizer=runs/tokenizer/bundle", "--out=out"
    commands = (
        ("tokenize", tokenizer, out, "--shard-size=4", *data, "--data.val_share=0.2"),
        ("tokenize", tokenizer, out, "--shard-size=4", *data, "--data.val_share=0.2", "--split=train"),
        ("evaluate", "--codec=jpeg", "--quality=50", out, *data, "--data.val_share=0.5"),
        ("fit", "--config=tokenizer.yaml", out, *data, "--data.val_share=0.2"),
        ("doctor", "shards", "--workers=0"),
    )
    return Case(f"001.tar: {what}", draw.choice(commands))


def _spoilt_classes(draw: random.Random, folder: Path) -> tuple[str, bytes]:
    path = folder / "shards" / "classes.json"
    contents = [b"{}", b"[1, 2]", b"[]", b"nonsense", b"", b'["a"]', b'["a", "a"]', b"[" * 5000, b"\xff\xfe", b"null"]
    content = draw.choice(contents)
    path.write_bytes(content)
    return f"classes.json is {short(content)}", content


def _rewrite_tar(draw: random.Random, path: Path) -> str:
    with tarfile.open(path) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    how = draw.choice(list(_MEMBERS))
    with tarfile.open(path, draw.choice(["w", "w", "w", "w:gz", "w:xz"])) as archive:
        for name, content, kind in _MEMBERS[how](draw, members):
            info = tarfile.TarInfo(name)
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.type = kind
            info.linkname = (
                draw.choice(["/etc/passwd", "../../pictures/cat/001.png", name]) if kind != tarfile.REGTYPE else ""
            )
            archive.addfile(info, io.BytesIO(content))
    return how


def _with(members: list, *more: tuple) -> list:
    return [(name, content, tarfile.REGTYPE) for name, content in members] + list(more)


_REGULAR = tarfile.REGTYPE
_MEMBERS: dict[str, Callable[[random.Random, list], list]] = {
    "nothing": lambda draw, members: [],
    "no pictures": lambda draw, members: [("a.txt", b"text", _REGULAR), ("a.cls", b"0", _REGULAR)],
    "every member twice": lambda draw, members: _with(members + members),
    "a key twice": lambda draw, members: _with(members, (members[0][0], members[0][1], _REGULAR)),
    "folders": lambda draw, members: _with(members, ("folder.png", b"", tarfile.DIRTYPE)),
    "links": lambda draw, members: _with(members, ("x.png", b"", draw.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]))),
    "a device": lambda draw, members: _with(members, ("x.png", b"", draw.choice([tarfile.FIFOTYPE, tarfile.CHRTYPE]))),
    "names that lead out": lambda draw, members: [
        (draw.choice(["../../", "/tmp/", "a/../../"]) + name, content, _REGULAR) for name, content in members
    ],
    "strange names": lambda draw, members: _with(
        members,
        (draw.choice([".png", "a\nb.png", "\x1b[31m.png", "x" * 300 + ".png", "", "a", "ü.png"]), b"x", _REGULAR),
    ),
    "strange labels": lambda draw, members: [
        (name, draw.choice(LABELS) if name.endswith(".cls") else content, _REGULAR) for name, content in members
    ],
    "one strange label": lambda draw, members: _with(
        [(name, content) for name, content in members if not name.startswith("000000")],
        ("strange.png", next(content for name, content in members if name.endswith("png")), _REGULAR),
        ("strange.cls", draw.choice(LABELS), _REGULAR),
    ),
    "strange JSON": lambda draw, members: _with(
        [member for member in members if not member[0].endswith(".cls")],
        ("z.png", next(content for name, content in members if name.endswith("png")), _REGULAR),
        (
            "z.json",
            draw.choice([b"{", b"[]", b'{"label": -1}', b'{"label": "a"}', b'{"label": true}', b"[" * 9999, b"\xff"]),
            _REGULAR,
        ),
    ),
    "pictures that are none": lambda draw, members: [
        (name, mutated_bytes(draw, content)[1] if name.endswith("png") else content, _REGULAR)
        for name, content in members
    ],
    "some labels gone": lambda draw, members: [
        (name, content, _REGULAR) for name, content in members if not name.endswith(".cls") or draw.random() < 0.5
    ],
}
