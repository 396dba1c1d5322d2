"""What the faults happen to: tiny models, pictures, shards and codes, made once by the verbs themselves."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cli.exports import contents
from tests.faults.commands import to
from tests.faults.injected import HAPPENED, NOT_PERMITTED, fill_disk_at, remove_at
from tests.faults.processes import Ended, Running
from tests.faults.project import make_project

Start = Callable[..., Running]
Vltok = Callable[..., Ended]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, shards, codes, recipes and finished runs; no test changes it."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


@pytest.fixture
def here(project: Path, tmp_path: Path) -> Path:
    """A copy of the project, to break."""
    return Path(shutil.copytree(project, tmp_path / "project"))


@pytest.fixture
def start(here: Path, tmp_path: Path) -> Iterator[Start]:
    """Start `vltok` in the project; what still runs at the end of the test is ended."""
    started: list[Running] = []

    def run(*arguments: object, faults=(), cwd: Path | None = None, **environment: str | None) -> Running:
        started.append(Running(arguments, faults, cwd or here, environment, tmp_path / "printed"))
        return started[-1]

    yield run
    for process in started:
        if process.alive:
            process.signal(9)
            process.end()


@pytest.fixture
def vltok(start: Start) -> Vltok:
    """Run `vltok` in the project to its end."""

    def run(*arguments: object, faults=(), cwd: Path | None = None, **environment: str | None) -> Ended:
        ended = start(*arguments, faults=faults, cwd=cwd, **environment).end()
        if ended.code == NOT_PERMITTED:
            pytest.skip("this fault needs a privilege that this machine does not give")
        awaited = any(getattr(fault, "func", None) in (fill_disk_at, remove_at) for fault in faults)
        assert not awaited or HAPPENED in ended.err, "the moment of the fault never came"
        return ended

    return run


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Say what the row of this test in the table is."""

    def say(fault: str, verb: str, line: str | None = None) -> None:
        record_property("fault", fault)
        record_property("verb", verb)
        if line is not None:
            record_property("line", line)

    return say


@pytest.fixture(scope="session")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether file systems may be mounted here."""
    folder = tmp_path_factory.mktemp("mount")
    if os.geteuid() or not shutil.which("mount"):
        return False
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode:
        return False
    subprocess.run(["umount", folder], check=True)
    return True


@pytest.fixture
def disk(mounts: bool, tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system of its own where one may be mounted; see `fill_disk_at`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mounts:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], check=True)
    yield folder
    if mounts:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """What a command writes that nothing disturbs; each is run once."""
    place = Path(shutil.copytree(project, tmp_path_factory.mktemp("undisturbed") / "project"))

    @functools.cache
    def run(command: tuple[str, ...]) -> Path:
        out = place / f"out-{len(list(place.iterdir()))}"
        Running(to(out, command), [], place, {}, place / ".printed").end().fine()
        return out

    return run


def way_on(out: Path) -> list[str]:
    """What is added to a command to go on after it failed: a run that has a checkpoint goes on from there."""
    if (out / "checkpoints" / "last.ckpt").exists():
        return ["--resume"]
    return ["--overwrite"] if (out / "config.yaml").exists() and (out / "logs").exists() else []


def whole(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that counts: not what an interrupted write has left beside, nor logs; manifests without
    the places of bundles, which follow from that of the folder."""
    files = {
        name: content
        for name, content in contents(folder).items()
        if "logs/" not in name and not any(part.startswith(".") for part in Path(name).parts)
    }
    for name in files:
        if Path(name).name == "codes.json":
            files[name] = json.dumps({**json.loads(files[name]), "tokenizer_places": []}).encode()
    return files
