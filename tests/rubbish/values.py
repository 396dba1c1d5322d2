"""Hostile values, and sound trees and texts with something wrong in them."""

import copy
import datetime
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONG = "x" * 5000
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 10**9, 2**31, 2**63, 2**64, -(2**64), 10**400, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "nan", "0", "12", "1e3", "-1", "null", "true", "None", "inf", "~", "$HOME", "..", "/", "/dev/null"),
    *(
        "ünïcödé",
        "日本",
        "\x1b[31mred\x07",
        "a\nb",
        "a\tb",
        "\u202edrow",
        "\ufeff",
        "a\0b",
        LONG,
        "%s %d {0}",
        "'",
        '"',
    ),
    *([], {}, [[]], [None], [1, [2, [3]]], {"a": {"b": 1}}, {"class_path": "nope"}, {"class_path": "os.system"}),
    *({"class_path": None}, {"class_path": "dq-vae", "init_args": None}, {"class_path": []}, {"init_args": {}}),
    *(datetime.date(2020, 1, 1), b"bytes", {1: 2}, {None: 1}, {"": 1}, {(1, 2): 3}),
)
#: What stands where a class should.
LABELS = (
    b"-1",
    b"text",
    b"",
    b"nan",
    b"1" + b"0" * 30,
    b"99999",
    b"1.5",
    b" 1\n",
    b"\xff",
    b"1" * 5000,
    b"2147483648",
)
#: Those that JSON can say, or at least Python's.
PLAIN = tuple(value for value in VALUES if not isinstance(value, datetime.date | bytes) and value != {(1, 2): 3})


def mutated(draw: random.Random, tree: Any, values: tuple[Any, ...] = VALUES) -> tuple[str, Any]:
    """A copy of a tree of mappings and lists with one thing wrong in it, and what that is."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    path = draw.choice(places)
    *parents, key = path
    holder = tree
    for parent in parents:
        holder = holder[parent]
    given = holder[key]
    name = ".".join(map(str, path))
    how = draw.choice(
        ["value", "value", "value", "value", "drop", "misspell", "extra", "text", "list", "deep", "number"]
    )
    if how == "drop":
        del holder[key]
        return f"{name} is missing", tree
    if how == "misspell" and isinstance(holder, dict) and isinstance(key, str) and len(key) > 2:
        wrong = key[1] + key[0] + key[2:]
        holder[wrong] = holder.pop(key)
        return f"{name} is spelt {wrong}", tree
    if how == "extra" and isinstance(given, dict):
        wrong = draw.choice(["strange", "", "class_path", "__class__", "a.b", "\x1b[0m", LONG, 7, None, "init_args"])
        given[wrong] = draw.choice(values)
        return f"{name} has the strange key {short(wrong)}", tree
    if how == "list":
        holder[key] = [given, given]
    elif how == "text":
        holder[key] = str(given)
    elif how == "deep":
        for _ in range(draw.choice([1, 3, 100])):
            given = {"a": given} if draw.random() < 0.5 else [given]
        holder[key] = given
        return f"{name} is nested", tree
    elif how == "number" and isinstance(given, int | float) and not isinstance(given, bool):
        holder[key] = draw.choice([-given, given + 0.5, given * 1_000_003, given * 10**30, str(given), given + 1])
    else:
        holder[key] = draw.choice(values)
    return f"{name} is {short(holder[key])}", tree


def mutated_bytes(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """Bytes that were cut, filled, turned or replaced, and how."""
    how = draw.choice(["cut", "empty", "zeros", "flipped", "text", "doubled", "noise", "head", "html"])
    half = draw.randrange(max(len(content), 1))
    if how == "cut":
        return f"cut to {half} of {len(content)} bytes", content[:half]
    if how == "head":
        return "without its first bytes", content[draw.choice([1, 10, 512]) :]
    if how == "flipped":
        changed = bytearray(content)
        for _ in range(draw.choice([1, 5, 200])):
            if changed:
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return "with some bits turned", bytes(changed)
    others = {
        "empty": b"",
        "zeros": bytes(len(content)),
        "text": b"not what you look for\n",
        "doubled": content + content,
        "noise": draw.randbytes(1000),
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    }
    return how, others[how]


def spoil_bytes(draw: random.Random, path: Path) -> str:
    """Write a file anew with its bytes mutated; how."""
    what, content = mutated_bytes(draw, path.read_bytes())
    path.write_bytes(content)
    return f"{path.name} {what}"


def to_json(tree: Any) -> str:
    """A tree as JSON, with what Python alone takes for it, and integers of any length."""
    sys.set_int_max_str_digits(0)
    return json.dumps(tree)


def short(value: Any) -> str:
    """A value as a report shows it."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        text = "an integer of many digits"
    return text if len(text) < 60 else f"{text[:60]}…"


def _places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, key)
            yield from _places(value, (*path, key))
