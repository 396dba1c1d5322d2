"""`python -m tests.soak`: how memory, open files and threads grow while tiny jobs run for long. Linux only.

Each job is a process, at which this one looks from outside many times a second. After the first third, which warms up,
a line is fitted to what was seen over the progress. The slopes are printed, and one that is above its limit fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.commands import DATA, FIT, FIT_PRIOR, TOKENIZE, to
from tests.faults.project import make_project

#: The most that each may grow: kB of memory, files, threads; in 1,000 steps or pictures.
_LIMITS = {"memory": 1000.0, "of a worker": 1000.0, "files": 0.5, "threads": 0.5, "processes": 0.5}
_WARM_UP = 1 / 3
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True)
class Job:
    """A command that runs for long.

    Attributes:
        name: What the table calls it.
        command: What follows `vltok`.
        progress: How many steps or pictures are done.
        total: How many there are.
    """

    name: str
    command: list[str]
    progress: Callable[[], int]
    total: int


def main() -> int:
    """Run all jobs and print the table; 1 where something grows."""
    rows, growing = [], []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        make_project(project)
        for job in _jobs(project):
            slopes = _slopes(_watch(job, project), job)
            rows.append([job.name, *(f"{slopes[key]:+.2f}" for key in _LIMITS)])
            growing += [f"{key} of {job.name}" for key, limit in _LIMITS.items() if slopes[key] > limit]
            print(f"{job.name}: done", file=sys.stderr, flush=True)
    head = ["growth in 1,000", "memory, kB", "of a worker, kB", "files", "threads", "processes"]
    limits = ["the most", *(f"{limit:+.2f}" for limit in _LIMITS.values())]
    widths = [max(map(len, column)) for column in zip(head, limits, *rows, strict=True)]
    for row in (head, limits, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"growing: {', '.join(growing)}" if growing else "nothing grows")
    return 1 if growing else 0


def _jobs(project: Path) -> list[Job]:
    def fit(name: str, command: tuple[str, ...]) -> Job:
        out, steps = project / f"long-{name}", project / f"{name}.steps"
        callback = f"--trainer.callbacks+={{class_path: tests.soak.steps.StepFile, init_args: {{path: {steps}}}}}"
        # small batches, so that there are fewer epochs, each of which starts processes
        options = ["--trainer.max_steps=2000", "--data.workers=2", "--data.batch_size=1", callback]
        return Job(f"fit, {name}, steps", [*to(out, command), *options], lambda: _number(steps), 2000)

    def export(name: str, command: list[str], folder: Path, shard: int, total: int) -> Job:
        return Job(name, command, lambda: shard * len(list(folder.glob("codes-*.tar"))), total)

    crops = ["--data=photos", "--data.size=16", "--data.train_crops=10000", "--data.batch_size=20", "--data.workers=2"]
    tokenize = [word for word in TOKENIZE if word not in (*DATA, "--shard-size=8")]
    codes, samples = project / "long-codes", project / "long-samples"
    sample = ["sample", "--prior=runs/prior/bundle", "--count=2000", "--shard-size=20", f"--out={samples}"]
    return [
        fit("tokenizer", FIT),
        fit("prior", FIT_PRIOR),
        export(
            "tokenize, pictures",
            [*to(codes, (*tokenize, *crops)), "--split=train", "--shard-size=100"],
            codes,
            100,
            10_000,
        ),
        export("sample, pictures", sample, samples / "codes", 20, 2000),
    ]


def _watch(job: Job, project: Path) -> np.ndarray:
    """What was seen, `[looks 6]`: the progress, and the figures in the order of `_LIMITS`.

    Raises:
        SystemExit: The job failed.
    """
    looks = []
    with (project / "printed.txt").open("w+") as printed:
        command = [sys.executable, "-m", "vltok", *job.command]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=printed, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            try:
                looks.append([job.progress(), *_look(process.pid)])
            except OSError:  # it has ended just now
                continue
        printed.seek(0)
        if process.returncode:
            raise SystemExit(f"{job.name}: exit {process.returncode}: {printed.read()[-3000:]}")
    return np.array(looks, dtype=float)


def _look(pid: int) -> tuple[float, float, int, int, int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    workers = [memory for memory in map(_memory, children) if memory]
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return _memory(pid), np.mean(workers) if workers else np.nan, files, int(status["Threads"]), len(children)


def _memory(pid: int | str) -> float:
    """The resident memory of a process, in kB; nothing once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4.096
    except OSError:
        return 0.0


def _slopes(looks: np.ndarray, job: Job) -> dict[str, float]:
    """The growth of each figure in 1,000 steps, once it is warm and before the end."""
    warm = looks[(looks[:, 0] > _WARM_UP * job.total) & (looks[:, 0] < job.total)]
    if len(warm) < 20:
        raise SystemExit(f"{job.name}: was seen only {len(warm)} times: this machine is too fast for these sizes")
    slopes = {}
    for column, key in enumerate(_LIMITS, start=1):
        seen = warm[np.isfinite(warm[:, column])]
        slopes[key] = 1000 * np.polyfit(seen[:, 0], seen[:, column], 1)[0] if len(seen) > 1 else 0.0
    return slopes


def _number(path: Path) -> int:
    text = path.read_text() if path.is_file() else ""
    return int(text or 0)


if __name__ == "__main__":
    sys.exit(main())
