"""What a machine may lack: a home, a temporary folder, a locale, open files, processes, someone who reads."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.commands import DETOKENIZE, EVALUATE, FIT, FIT_PRIOR, RECONSTRUCT, SAMPLE, TOKENIZE, to, verb
from tests.faults.conftest import Vltok
from tests.faults.injected import break_pipe, close, fill, limit_files, limit_processes, without_root

pytestmark = pytest.mark.faults

_MAIN = (FIT, FIT_PRIOR, TOKENIZE, SAMPLE, EVALUATE)


@pytest.mark.parametrize("command", _MAIN, ids=verb)
@pytest.mark.parametrize(
    ("fault", "injected"),
    [
        ("stdout is closed", functools.partial(close, 1)),
        ("stderr is closed", functools.partial(close, 2)),
        ("stdin is closed", functools.partial(close, 0)),
        ("ulimit -n 64", functools.partial(limit_files, 64)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bears(fault: str, injected, command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row(fault, verb(command), "goes on")
    vltok(*to("out", command), faults=[injected]).fine()


@pytest.mark.parametrize("command", _MAIN, ids=verb)
def test_no_more_processes(command: tuple[str, ...], vltok: Vltok, row) -> None:
    row("ulimit -u 0", verb(command))
    ended = vltok(*to("out", command), faults=[limit_processes])
    row("ulimit -u 0", verb(command), "goes on" if ended.code == 0 else ended.line("processes"))


@pytest.mark.parametrize("command", _MAIN, ids=verb)
@pytest.mark.parametrize("descriptor", [1, 2], ids=["stdout", "stderr"])
def test_nobody_reads(descriptor: int, command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    name = "nobody reads " + ("stdout (| head)" if descriptor == 1 else "stderr")
    row(name, verb(command))
    ended = vltok(*to("out", command), faults=[functools.partial(break_pipe, descriptor)])
    assert "Traceback" not in ended.err and "unexpected" not in ended.err and "Exception ignored" not in ended.err
    # what is printed is no reason to lose what was computed
    written = "metrics.json" if command[0] in ("fit", "evaluate") else "codes.json"
    assert list((here / "out").rglob(written)), ended
    row(name, verb(command), f"all is written, exit {ended.code}")


@pytest.mark.parametrize("command", _MAIN, ids=verb)
@pytest.mark.parametrize(
    ("fault", "environment"),
    [
        ("HOME is nowhere", {"HOME": "/nowhere"}),
        ("no HOME", {"HOME": None}),
        ("TMPDIR is nowhere", {"TMPDIR": "/nowhere"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_environment(
    fault: str, environment: dict[str, str | None], command: tuple[str, ...], here: Path, vltok: Vltok, row
) -> None:
    row(fault, verb(command), "goes on")
    vltok(*to("out", command), **environment).fine()


@pytest.mark.parametrize("command", _MAIN, ids=verb)
def test_read_only_home(command: tuple[str, ...], here: Path, tmp_path: Path, vltok: Vltok, row) -> None:
    row("HOME is read-only", verb(command), "goes on")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o555)
    vltok(*to("out", command), faults=[without_root], HOME=str(home)).fine()


@pytest.mark.parametrize("command", (FIT, TOKENIZE), ids=verb)
def test_full_temporary_folder(
    command: tuple[str, ...], here: Path, disk: Path, mounts: bool, vltok: Vltok, row
) -> None:
    row("TMPDIR is full", verb(command), "goes on")
    if not mounts:
        pytest.skip("file systems may not be mounted here")
    fill(disk)
    vltok(*to("out", command), TMPDIR=str(disk)).fine()


@pytest.mark.parametrize("command", (TOKENIZE, DETOKENIZE, RECONSTRUCT, FIT, EVALUATE), ids=verb)
def test_ascii_only(command: tuple[str, ...], here: Path, row) -> None:
    """The locale is read when Python starts: these are processes of their own."""
    row("locale C, names beyond ASCII", verb(command), "goes on")
    (here / "pictures" / "cat").rename(here / "pictures" / "chat-é-猫")
    shutil.copy(here / "pictures" / "person" / "000.png", here / "pictures" / "person" / "żółć 🐈.png")
    # a name that is no text in any encoding
    shutil.copy(here / "pictures" / "person" / "000.png", os.fsencode(here / "pictures" / "person") + b"/caf\xe9.png")
    out = here / "out-ü"
    if command == DETOKENIZE:
        _in_locale_c(here, [*to(here / "codes-ü", TOKENIZE)])
        command = ("detokenize", str(here / "codes-ü"), "--tokenizer=tokenizer")
    printed = _in_locale_c(here, to(out, command))
    assert out.is_dir(), printed


def _in_locale_c(here: Path, arguments: list[str]) -> str:
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "vltok", *arguments]
    ended = subprocess.run(command, cwd=here, env={**environment, "PYTHONPATH": root}, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")[-3000:]
    return ended.stdout.decode("ascii", errors="strict")
