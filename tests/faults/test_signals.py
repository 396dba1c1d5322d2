"""Processes that are ended from outside, at moments that nobody chose: the same command goes on to the same end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.cli.exports import contents
from tests.faults.commands import (
    ABLATE,
    DETOKENIZE,
    EVALUATE,
    FIT,
    FIT_PRIOR,
    PACK,
    RECONSTRUCT,
    SAMPLE,
    TOKENIZE,
    to,
    verb,
)
from tests.faults.conftest import Start, Vltok, way_on, whole

pytestmark = pytest.mark.faults

_SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"]
_FIRST = {  # what is there when the signal comes
    FIT: "checkpoints/last.ckpt",
    FIT_PRIOR: "checkpoints/last.ckpt",
    TOKENIZE: "codes-000000.tar",
    SAMPLE: "codes/codes-000000.tar",
    DETOKENIZE: "cat/001.png",
    RECONSTRUCT: "001.png",
    EVALUATE: ".*",  # its lock
    PACK: ".packing/*.tar",
    ABLATE: "*/seed-0/checkpoints/last.ckpt",
}


@pytest.mark.parametrize("name", _SIGNALS)
@pytest.mark.parametrize("command", _FIRST, ids=verb)
def test_signal(command: tuple[str, ...], name: str, here: Path, undisturbed, start: Start, vltok: Vltok, row) -> None:
    row(name, verb(command))
    command_of = (*command, "--trainer.max_steps=200") if command[0] in ("fit", "ablate") else command
    out = here / "out"
    process = start(*to(out, command_of))
    process.wait_until(lambda: list(out.glob(_FIRST[command])))
    time.sleep(random.random() * 0.05)
    with contextlib.suppress(ProcessLookupError):
        process.signal(getattr(signal, name))
    ended = process.end()
    if ended.code == 0:
        pytest.skip("it was through before the signal came")
    line = "nothing lost" if name == "SIGKILL" else ended.line("interrupted|terminated|stopped|SIG")
    row(name, verb(command), line)
    before = {name: content for name, content in whole(out).items()} if out.exists() else {}
    extra = way_on(out)
    vltok(*to(out, command_of), *extra).fine()
    after = whole(out)
    if command[0] in ("tokenize", "sample", "detokenize"):
        assert all(after[name] == content for name, content in before.items())
    expected = whole(undisturbed(command_of))
    assert set(after) == set(expected)
    if command[0] in ("tokenize", "sample", "detokenize", "pack"):
        assert after == expected
    for path in (name for name in expected if name.endswith("bundle/model.safetensors")):
        assert after[path] == expected[path], f"{path} has other weights than the undisturbed run's"


@pytest.mark.parametrize("command", [FIT, FIT_PRIOR], ids=verb)
def test_signal_to_the_whole_group(command: tuple[str, ...], here: Path, start: Start, vltok: Vltok, row) -> None:
    row("Ctrl-C with workers", verb(command))
    arguments = [*to("out", command), "--data.workers=2", "--trainer.max_steps=200"]
    process = start(*arguments)
    process.wait_until((here / "out" / "checkpoints" / "last.ckpt").exists)
    os.killpg(process.pid, signal.SIGINT)
    row("Ctrl-C with workers", verb(command), process.end().line("--resume"))
    vltok(*arguments, "--resume").fine()
    assert contents(here / "out")
