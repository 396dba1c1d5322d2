"""What the faults happen to: tiny models, pictures, shards and codes, made once by the verbs themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.exports import contents, write_bundle, write_pictures
from tests.faults.commands import EVALUATE, to
from tests.faults.injected import NOT_PERMITTED
from tests.faults.processes import Ended, Running

_MODEL = """
  class_path: vltok.training.TokenizerTraining
  init_args:
    tokenizer:
      class_path: dq-vae
      init_args:
        encoder: {class_path: patch, init_args: {factors: [4, 8], width: 8, blocks: 1, channels: 8}}
        gate: {class_path: feature, init_args: {channels: 8, granularities: 2, norm_groups: 4}}
        quantizer: {class_path: ema-vq, init_args: {size: 300, dimension: 4}}
        decoder: {class_path: pixel-shuffle, init_args: {factor: 4, channels: 8, width: 8, blocks: 1}}
        budget: {class_path: ratio, init_args: {ratios: {4: 0.5, 8: 0.5}}}
    perceptual: {class_path: none}
"""
TOKENIZER = f"""
seed_everything: 3
model:{_MODEL}
data: {{class_path: folder, init_args: {{root: pictures, size: 16, batch_size: 4, val_share: 0.3, workers: 0}}}}
trainer: {{accelerator: cpu, max_steps: 20, num_sanity_val_steps: 0}}
"""
PRIOR = """
seed_everything: 5
model:
  class_path: vltok.training.PriorTraining
  init_args:
    prior:
      class_path: dq-transformer
      init_args: {codebook_size: 300, factors: [4, 8], regions: [2, 2], width: 16, heads: 2,
                  position_layers: 1, content_layers: 1}
    learning_rate: 1.0e-2
data: {class_path: codes, init_args: {root: codes/train, validation: codes/val, batch_size: 4, workers: 0}}
trainer: {accelerator: cpu, max_steps: 20, num_sanity_val_steps: 0}
"""
TABLE = "title: Lengths\nsource: none\nbase: ../tokenizer.yaml\ncolumns: [{key: psnr, heading: PSNR, format: .2f}]\n"

Start = Callable[..., Running]
Vltok = Callable[..., Ended]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, shards, codes, recipes and finished runs; no test changes it."""
    folder = tmp_path_factory.mktemp("project")
    write_bundle(folder / "tokenizer")
    write_pictures(folder / "pictures", 40)
    (folder / "tokenizer.yaml").write_text(TOKENIZER)
    (folder / "prior.yaml").write_text(PRIOR)
    pictures = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--data.val_share=0.3"]
    for arguments in (
        *(
            ["tokenize", "--tokenizer=tokenizer", f"--split={s}", f"--out=codes/{s}", *pictures]
            for s in ("train", "val")
        ),
        ["fit", "--config=tokenizer.yaml", "--out=runs/tokenizer"],
        ["fit", "--config=prior.yaml", "--out=runs/prior"],
        ["pack", "pictures", "shards", "--count=10", "--workers=1"],
    ):
        Running([*arguments], [], folder, {}, folder / ".printed").end().fine()
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


@pytest.fixture
def evaluated(here: Path, vltok: Vltok) -> None:
    """What `compare` reads, and the table that `ablate` reads."""
    vltok(*to("evaluated", EVALUATE)).fine()
    (here / "table").mkdir()
    (here / "table" / "table.yaml").write_text(TABLE)
    (here / "table" / "short.yaml").write_text("trainer: {max_steps: 2}\n")


def whole(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that counts: not what an interrupted write has left beside, nor logs."""
    return {
        name: content
        for name, content in contents(folder).items()
        if "logs/" not in name and not any(part.startswith(".") for part in Path(name).parts)
    }
