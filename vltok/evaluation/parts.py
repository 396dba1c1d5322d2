"""An evaluation in parts, by jobs apart from each other: each writes what it has seen, and the last one concludes.

```
evaluated/
  .unfinished/
    evaluation.json           what is measured, and in how many parts
    part-000003.safetensors   what a part has seen: sums, counts, features, the figures of each picture
```

A part is there whole, or not at all. Once the figures are there, the folder goes; `metrics.json` says in how many parts
they were measured, and of which evaluation.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vltok.errors import UserError, how_many, one_line
from vltok.evaluation.gathering import Items, joined_items
from vltok.evaluation.records import RECORD, Record
from vltok.files import alone_in, written_whole
from vltok.launchers import array_of

_WORK, _RUN = ".unfinished", "evaluation.json"
_TREE, _VERSION = "tree", 1
_SECONDS_TO_CLAIM = 60.0


@final
class EvaluationParts:
    """The folder of an evaluation in parts.

    Args:
        folder: Where the evaluation goes; it is made.
        parts: How many there are.
        asked: What figures follow from, by names that mean something to the user; plain values.

    Raises:
        UserError: The folder holds parts of another evaluation, or cannot be written.
    """

    def __init__(self, folder: Path, parts: int, asked: Mapping[str, Any]) -> None:
        self._folder, self._work, self._parts = folder, folder / _WORK, parts
        run = {"version": _VERSION, "parts": parts, "asked": json.loads(json.dumps(asked))}
        self._digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        if not self.finished:
            with alone_in(folder, _SECONDS_TO_CLAIM):
                self._claim(run)

    @property
    def described(self) -> dict[str, Any]:
        """What a record's environment says: `finished` finds the evaluation by it."""
        return {"count": self._parts, "evaluation": self._digest}

    @property
    def finished(self) -> bool:
        """Whether the figures are there."""
        return self.record() is not None

    def record(self) -> Record | None:
        """The figures; None where they are not there yet. What a kill has left of the parts goes."""
        try:
            found = Record.read(self._folder) if (self._folder / RECORD).is_file() else None
        except UserError:  # of something else, which is overwritten
            return None
        if found is None or found.environment.get("parts") != self.described:
            return None
        self.clean_up()
        return found

    def missing(self) -> tuple[int, ...]:
        """The parts, from 1, that have not ended."""
        return _missing(self._work, self._parts)

    def has(self, part: int) -> bool:
        """Whether a part, from 1, has ended."""
        return _path(self._work, part).is_file()

    def write(self, part: int, items: Items) -> None:
        """Write what a part has seen.

        Raises:
            OSError: The folder cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(_plain(items, arrays)).encode()
        arrays[_TREE] = np.frombuffer(tree, dtype=np.uint8)
        with written_whole(_path(self._work, part)) as path:
            save_file(arrays, path, {"evaluation": self._digest})

    def together(self) -> Items:
        """What all parts have seen.

        Raises:
            UserError: A part is missing or damaged.
        """
        return joined_items([self._read(part) for part in range(1, self._parts + 1)])

    def clean_up(self) -> None:
        """Remove the parts, whose figures are there."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _claim(self, run: Mapping[str, Any]) -> None:
        path = self._work / _RUN
        if not path.is_file():
            with written_whole(path) as file:
                file.write_text(json.dumps(run), encoding="utf-8")
            return
        there = _read_run(path)
        if there == run:
            return
        names = sorted({*there["asked"], *run["asked"]})
        other = [f"{there['parts']} parts, not {run['parts']}"] if there["parts"] != run["parts"] else []
        pairs = ((name, there["asked"].get(name), run["asked"].get(name)) for name in names)
        other += [f"{name} {_shown(before)}, not {_shown(now)}" for name, before, now in pairs if before != now]
        raise UserError(
            f"--out '{self._folder}' holds parts of another evaluation ({', '.join(other) or 'of another vltok'}): "
            f"name another folder, or remove '{self._work}'"
        )

    def _read(self, part: int) -> Items:
        path = _path(self._work, part)
        try:
            with safe_open(path, "np") as file:
                about = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["evaluation"] != self._digest:
                raise ValueError("it is of another evaluation")
            items = _from_plain(json.loads(arrays.pop(_TREE).tobytes()), arrays)
            if not isinstance(items, dict):
                raise ValueError("it holds no lists")
            return items
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"'{path}' is damaged ({one_line(error)}): remove it, and give part {part} again"
            ) from error


def check_whole(folder: Path) -> None:
    """See that no parts of an evaluation stand in a folder and wait for others.

    Raises:
        UserError: Some do: says which are missing.
    """
    path = folder / _WORK / _RUN
    if not path.is_file():
        return
    parts = _read_run(path)["parts"]
    missing = _missing(folder / _WORK, parts)
    if missing:
        raise UserError(
            f"{folder} is not whole: {how_many(len(missing), 'part')} of {parts} must be given again, or still run "
            f"(--array={array_of(missing)})"
        )
    raise UserError(f"{folder} has all {parts} parts of an evaluation: give any of them again, to put them together")


def _missing(work: Path, parts: int) -> tuple[int, ...]:
    return tuple(part for part in range(1, parts + 1) if not _path(work, part).is_file())


def _path(work: Path, part: int) -> Path:
    return work / f"part-{part:06d}.safetensors"


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(run["asked"], dict) and type(run["parts"]) is int):
            raise ValueError("it describes no evaluation")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"'{path}' is damaged: remove '{path.parent}', and give all parts again") from error
    return run


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON has it; arrays are put aside, and bytes are told in hexadecimal digits."""
    if isinstance(value, np.ndarray):
        arrays[f"{len(arrays)}"] = np.ascontiguousarray(value)
        return {"array": f"{len(arrays) - 1}"}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return {"items": {name: _plain(part, arrays) for name, part in value.items()}}
    if isinstance(value, list | tuple):
        parts = [_plain(part, arrays) for part in value]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    return value


def _from_plain(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `_plain` was given."""
    if isinstance(value, list):
        return [_from_plain(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    (kind, part), *_ = value.items()
    if kind == "array":
        return arrays[part]
    if kind == "bytes":
        return bytes.fromhex(part)
    if kind == "tuple":
        return tuple(_from_plain(each, arrays) for each in part)
    return {name: _from_plain(each, arrays) for name, each in part.items()}
