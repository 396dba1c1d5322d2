"""NaN, memory that runs out, and what a run refuses."""

from __future__ import annotations

import functools
import shutil
import socket
from pathlib import Path

import pytest

from tests.cli.exports import contents
from tests.faults.commands import DETOKENIZE, EVALUATE, FIT, FIT_PRIOR, RECONSTRUCT, SAMPLE, TOKENIZE, to, verb
from tests.faults.conftest import Start, Vltok, way_on, whole
from tests.faults.injected import limit_memory, run_out_of_device_memory

pytestmark = pytest.mark.faults

_NAN = {
    "loss": "--model.learning_rate=1.0e30",
    "gradients": "--trainer.callbacks+="
    "{class_path: tests.faults.callbacks.NaNGradients, init_args: {step: 12, rank: 1}}",
}


@pytest.mark.parametrize("where", _NAN)
@pytest.mark.parametrize("command", [FIT, FIT_PRIOR], ids=verb)
def test_nan(command: tuple[str, ...], where: str, here: Path, vltok: Vltok, row) -> None:
    row(f"NaN in {where}, one process", verb(command))
    option = _NAN[where].replace("rank: 1", "rank: 0")
    line = vltok(*to("out", command), option).line("NaN", "learning_rate")
    row(f"NaN in {where}, one process", verb(command), line)
    # the recipe can be corrected and given again
    assert not (here / "out" / "bundle").exists()
    extra = way_on(here / "out")
    vltok(*to("out", command), *extra).fine()


@pytest.mark.parametrize("where", _NAN)
@pytest.mark.parametrize("command", [FIT, FIT_PRIOR], ids=verb)
def test_nan_in_two_processes(command: tuple[str, ...], where: str, here: Path, start: Start, row) -> None:
    row(f"NaN in {where}, two processes", verb(command))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "faults"}
    both["GLOO_SOCKET_IFNAME"] = "lo"
    arguments = [*to("out", command), "--trainer.devices=2", "--trainer.strategy=ddp", _NAN[where]]
    processes = [
        start(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2", **both) for rank in (0, 1)
    ]
    ended = [process.end() for process in processes]
    assert all(each.code > 0 for each in ended), ended
    lines = [each for each in ended if "vltok: " in each.err]
    row(f"NaN in {where}, two processes", verb(command), lines[0].line("NaN", "learning_rate"))
    for each in lines:
        each.line("NaN")


_SETTINGS = {
    FIT: "data.batch_size",
    FIT_PRIOR: "data.batch_size",
    TOKENIZE: "--batch-size",
    SAMPLE: "--batch-size",
    DETOKENIZE: "--batch-size",
    EVALUATE: "--batch-size",
    RECONSTRUCT: "--tile",
}


@pytest.mark.parametrize("command", _SETTINGS, ids=verb)
def test_out_of_device_memory(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("out of device memory", verb(command))
    calls = 300 if command[0] == "fit" else 60 if command == SAMPLE else 4
    ended = vltok(*to("out", command), faults=[functools.partial(run_out_of_device_memory, calls)])
    line = ended.line() if command == RECONSTRUCT else ended.line("memory", _SETTINGS[command])
    assert _SETTINGS[command] in ended.err
    row("out of device memory", verb(command), line)
    finished = {} if command in (EVALUATE, RECONSTRUCT) else whole(here / "out")
    extra = way_on(here / "out")
    vltok(*to("out", command), *extra).fine()
    if command[0] != "fit":
        assert all(whole(here / "out")[name] == content for name, content in finished.items())


@pytest.mark.parametrize("command", [FIT, TOKENIZE, EVALUATE], ids=verb)
def test_out_of_memory(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("out of memory (ulimit -v)", verb(command))
    large = ["--data.size=1024", "--data.batch_size=24"]
    line = vltok(*to("out", command), *large, faults=[functools.partial(limit_memory, 300)]).line(
        "memory", "data.batch_size" if command == FIT else "--batch-size"
    )
    row("out of memory (ulimit -v)", verb(command), line)


@pytest.mark.parametrize(
    ("fault", "options", "message"),
    [
        ("another codebook", ["--model.tokenizer.quantizer.size=256"], "size"),
        ("another encoder", ["--model.tokenizer.encoder.width=16"], "width"),
        ("another kind", ["--model.tokenizer.gate=gain"], "gate"),
    ],
)
def test_refused_resume(fault: str, options: list[str], message: str, here: Path, vltok: Vltok, row) -> None:
    row(f"refused resume: {fault}", verb(FIT))
    run = here / "runs" / "tokenizer"
    before = contents(run)
    line = vltok("fit", "--resume", "--out=runs/tokenizer", *options).line(message)
    row(f"refused resume: {fault}", verb(FIT), line)
    assert contents(run) == before
    vltok("fit", "--resume", "--out=runs/tokenizer", "--trainer.max_steps=24").fine()


@pytest.mark.parametrize("command", [FIT, FIT_PRIOR], ids=verb)
def test_cut_checkpoint(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("cut checkpoint", verb(command))
    run = here / "runs" / ("tokenizer" if command == FIT else "prior")
    last = run / "checkpoints" / "last.ckpt"
    others = [path for path in last.parent.iterdir() if path != last]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    ended = vltok("fit", "--resume", f"--out={run}", "--trainer.max_steps=24")
    if others:  # the one before
        assert "last.ckpt" in ended.fine().err
        line = next(line for line in ended.err.splitlines() if "last.ckpt" in line)
    else:
        line = ended.line("last.ckpt")
    row("cut checkpoint", verb(command), line)


@pytest.mark.parametrize(
    ("command", "refused"),
    [
        (SAMPLE, ["--codes=3"]),
        (SAMPLE, ["--temperature=-1"]),
        (TOKENIZE, ["--data.size=20"]),
        (TOKENIZE, ["--device=cuda:99"]),
    ],
    ids=lambda value: value[0] if len(value) == 1 else verb(value),
)
def test_refused(command: tuple[str, ...], refused: list[str], here: Path, vltok: Vltok, row) -> None:
    row(f"refused {refused[0]}", verb(command))
    row(f"refused {refused[0]}", verb(command), vltok(*to("out", command), *refused).line())
    vltok(*to("out", command)).fine()


@pytest.mark.parametrize("command", [FIT, FIT_PRIOR], ids=verb)
def test_overwrite_that_fails(command: tuple[str, ...], here: Path, vltok: Vltok, row) -> None:
    row("--overwrite that fails", verb(command))
    name = "tokenizer" if command == FIT else "prior"
    shutil.copytree(here / "runs" / name, here / "out")
    callback = "--trainer.callbacks+={class_path: tests.faults.callbacks.Raises, init_args: {step: 15}}"
    line = vltok(*to("out", command), "--overwrite", callback).line()
    row("--overwrite that fails", verb(command), line)
    # the new run goes on from its own checkpoint
    vltok(*to("out", command), "--resume").fine()
