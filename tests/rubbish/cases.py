"""A case of rubbish, how it is run, and what is a fault of vltok in what comes of it."""

import hashlib
import random
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .canaries import CANARY
from .results import invalid
from .warm import HANGS, WarmProcess

#: What a command may print besides its one line, when it fails.
_CHATTER = re.compile(
    r"vltok: (warning|skipped|note)|(tokenize|sample|detokenize|evaluate|doctor)(, process \d+ of \d+)?: \d+/\d+, |"
    r"\d+ pictures, \d+ shards, on |going on from \d+ pictures|\[\d+/\d+\] |\s*$"
)
_LONGEST = 420
_SECONDS = 30
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+|\.replaced)?|.*\.(tmp|part|unfinished|replaced)")


@dataclass(frozen=True)
class Case:
    """A command that is given something wrong, or at least unusual.

    Attributes:
        what: What is wrong, for people.
        arguments: What follows `vltok`.
        environment: Variables that the command sees.
        goes_on: The folder that the command goes on with, if there is one: where it succeeds, it changes that.
    """

    what: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    goes_on: str | None = None


#: Changes a copy of the sound inputs, and says what is run on it.
Generator = Callable[[random.Random, Path], Case]


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: Which.
        name: By which it is generated again: ``KIND/SEED/NUMBER``.
        code: The exit code.
        fault: What is wrong with how vltok took it; None where nothing is.
        line: The last line that it printed to the standard error.
    """

    case: Case
    name: str
    code: int
    fault: str | None
    line: str

    def __str__(self) -> str:
        command = " ".join(self.case.arguments)[:600]
        return f"{self.name}: {self.case.what}\n  {command!r}\n  {self.fault}: {self.line[:700]}"


def run_case(warm: WarmProcess, sound: Path, scratch: Path, kind: str, generator: Generator, name: str) -> Outcome:
    """Generate a case, run it, and judge.

    Args:
        warm: Runs it.
        sound: The folder of sound inputs.
        scratch: A folder that does not exist yet, and is removed.
        kind: The generator's name.
        generator: Makes the case.
        name: ``SEED/NUMBER``.
    """
    name = f"{kind}/{name}"
    inputs = scratch / "project"
    shutil.copytree(sound, inputs, symlinks=True)
    try:
        case = generator(random.Random(name), inputs)
        before = _state(inputs)
        environment = {"HF_ENDPOINT": "http://127.0.0.1:9", **case.environment}
        code = warm.run(case.arguments, inputs, scratch / "printed", _SECONDS, environment)
        printed, error = (
            (scratch / f"printed{ending}").read_bytes().decode("utf-8", "backslashreplace")
            for ending in (".out", ".err")
        )
        after = _state(inputs)
        fault = _fault(case, inputs, code, printed, error, before, after)
        lines = error.rstrip("\n").split("\n")
        return Outcome(case, name, code, fault, next((line for line in reversed(lines) if line.strip()), ""))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fault(
    case: Case,
    folder: Path,
    code: int,
    printed: str,
    error: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
) -> str | None:
    if (folder / CANARY).exists():
        return "it executed what it was given"
    if code == HANGS:
        return f"it hangs: killed after {_SECONDS} s"
    if code < 0:
        return f"signal {-code} ended it"
    changed = sorted(path for path in before if before[path] != after.get(path))
    if code == 0 and case.goes_on is not None:
        changed = [path for path in changed if not path.startswith(f"{case.goes_on}/")]
    if changed:
        return f"it changed {changed[:3]}"
    new = sorted(set(after) - set(before))
    if left := [path for path in new if _TEMPORARY.fullmatch(Path(path).name)]:
        finished = any(path.endswith((".tar", ".parquet")) for path in new)
        for_others = code != 0 or "the last one to end writes" in printed
        if not (finished and for_others) or any(Path(path).name != ".unfinished" for path in left):
            return f"it left {left[:3]}"
    if code == 0:
        return _said_wrong(printed + error) or invalid(folder, new)
    return _said_badly(error) or _half_written(new, after)


def _said_wrong(text: str) -> str | None:
    return "it succeeds with a traceback" if "Traceback (most recent call last)" in text else None


def _said_badly(error: str) -> str | None:
    """What is wrong with the last words of a command that failed."""
    if "Traceback (most recent call last)" in error:
        return "it prints a traceback"
    if "unexpected:" in error:
        return "nobody thought of it"
    lines = error.rstrip("\n").split("\n")
    said = [line for line in lines if line.startswith("vltok: error: ")]
    if len(said) != 1 or lines[-1] != said[0]:
        return f"it says {len(said)} lines that are errors"
    if strange := [line for line in lines[:-1] if not _CHATTER.match(line)]:
        return f"it also says {strange[0][:200]!r}"
    if len(said[0]) > _LONGEST:
        return f"its line has {len(said[0])} letters"
    if control := [letter for letter in error if not letter.isprintable() and letter not in "\n\t"]:
        return f"it prints the control character {control[0]!r}"
    return None


def _half_written(new: list[str], after: Mapping[str, str]) -> str | None:
    """What a command that failed has left that is of no use."""
    files = [path for path in new if after[path] != "folder"]
    folders = [path for path in new if after[path] == "folder"]
    empty = [folder for folder in folders if not any(path.startswith(f"{folder}/") for path in files)]
    if empty:
        return f"it left empty folders: {empty[:3]}"
    return None


def _state(folder: Path) -> dict[str, str]:
    """What is in a folder: for each path the hash of the file, where it leads, or what else it is."""
    state = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found = f"link to {path.readlink()}"
        elif stat.S_ISDIR(mode):
            found = "folder"
        elif stat.S_ISREG(mode):
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found = "special"
        if path.name != CANARY and "__pycache__" not in path.parts:
            state[str(path.relative_to(folder))] = found
    return state
