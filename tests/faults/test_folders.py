"""Folders that cannot be written, and such as vanish while they are used."""

from __future__ import annotations

import functools
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.exports import contents
from tests.faults.commands import ALL, EVALUATE, FIT, FIT_PRIOR, PACK, SAMPLE, TOKENIZE, to, verb
from tests.faults.conftest import Start, Vltok, whole
from tests.faults.injected import remove_at, without_root

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("command", ALL, ids=verb)
def test_read_only_folder(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("read-only folder", verb(command))
    parent = here / "locked"
    parent.mkdir()
    (parent / "mine").write_text("mine")
    parent.chmod(0o555)
    ended = vltok(*to(parent / "out", command), faults=[without_root])
    row("read-only folder", verb(command), ended.line("locked", "Permission denied|may not|read-only"))
    assert contents(parent) == {"mine": b"mine"}
    parent.chmod(0o755)
    vltok(*to(parent / "out", command), faults=[without_root]).fine()


@pytest.mark.parametrize(
    ("command", "finished"), [(FIT, "runs/tokenizer"), (FIT_PRIOR, "runs/prior")], ids=["tokenizer", "prior"]
)
def test_read_only_run(command: tuple[str, ...], finished: str, here: Path, vltok: Vltok, row) -> None:
    row("read-only run, --overwrite", verb(command))
    run = here / finished
    before = contents(run)
    run.chmod(0o555)
    line = vltok(*to(run, command), "--overwrite", faults=[without_root]).line(finished)
    row("read-only run, --overwrite", verb(command), line)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("what", "pattern", "vanishes", "command"),
    [
        ("run folder", r"checkpoints/.", "out", FIT),
        ("run folder", r"checkpoints/.", "out", FIT_PRIOR),
        ("log folder", r"checkpoints/.", "out/logs", FIT),
        ("code folder", r"codes-000002\.tar", "out", TOKENIZE),
        ("sample folder", r"pictures/\.000003", "out", SAMPLE),
        ("pictures", r"checkpoints/.", "pictures", FIT),
        ("codes", r"checkpoints/.", "codes", FIT_PRIOR),
        ("pictures", r"codes-000001\.tar", "pictures", TOKENIZE),
    ],
)
def test_vanished_folder(
    what: str, pattern: str, vanishes: str, command: tuple[str, ...], here: Path, vltok: Vltok, row
) -> None:
    row(f"vanished folder: {what}", verb(command))
    ended = vltok(*to("out", command), faults=[functools.partial(remove_at, pattern, vanishes)])
    # what vanished may be made again
    line = "goes on" if ended.code == 0 and vanishes.startswith("out") else ended.line()
    row(f"vanished folder: {what}", verb(command), line)


@pytest.mark.parametrize("command", [EVALUATE, PACK, TOKENIZE, FIT], ids=verb)
def test_no_pictures(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("vanished folder: pictures, before", verb(command))
    shutil.move(here / "pictures", here / "elsewhere")
    row("vanished folder: pictures, before", verb(command), vltok(*to("out", command)).line("pictures"))
    assert not (here / "out").exists()
    shutil.move(here / "elsewhere", here / "pictures")
    vltok(*to("out", command)).fine()


@pytest.mark.parametrize("command", [FIT, TOKENIZE], ids=verb)
def test_two_at_once(command: tuple[str, ...], here: Path, start: Start, vltok: Vltok, row) -> None:
    row("two at once in one folder", verb(command))
    if command == FIT:
        command = (*FIT, "--trainer.max_steps=100000")
    first = start(*to("out", command))
    place = here / "out" / ("checkpoints/last.ckpt" if command[0] == "fit" else ".unfinished/run.json")
    first.wait_until(place.exists)
    if command[0] == "tokenize":  # it would soon be through
        first.signal(signal.SIGSTOP)
    extra = ["--resume"] if command[0] == "fit" else []
    line = vltok(*to("out", command), *extra).line("another|in use|process")
    row("two at once in one folder", verb(command) if command[0] != "fit" else verb(FIT), line)
    if command[0] == "fit":
        vltok(*to("out", command), "--overwrite").line("another|in use|process")
        first.signal(signal.SIGINT)
        first.end().line("--resume")
    else:
        first.signal(signal.SIGCONT)
        first.end().fine()
    assert whole(here / "out")
