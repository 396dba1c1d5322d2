"""`vltok_ray.tokenize`: an export whose parts are tasks of Ray."""

from __future__ import annotations

import inspect
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

import vltok
from vltok.errors import UserError, first_line, how_many, unknown, whole_number

_LOG = logging.getLogger(__name__)
_SECONDS_TO_CONNECT = 10
#: Arguments of `vltok.tokenize` that are no options here.
_OURS = ("tokenizer", "data", "out", "part", "progress")


def tokenize(
    tokenizer: str | os.PathLike,
    data: str | Mapping[str, Any],
    out: str | os.PathLike,
    *,
    parts: int,
    gpus: float = 0,
    cpus: float = 1,
    retries: int = 3,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Path:
    """Write the code sequences of pictures as shards, by as many tasks of Ray as there are parts.

    The export is the one that `vltok.tokenize` writes alone, byte for byte. A task whose process or machine dies is
    started again, and does again only the shard that it was at. Called again, this goes on where it was.

    It takes the Ray that this process is connected to, or else the cluster that `RAY_ADDRESS` names or that runs here,
    or else one that it starts on this machine.

    Args:
        tokenizer: A tokenizer's bundle: a folder that all machines see, or `user/name`.
        data: The pictures: the name of a source that all machines see, or its `class_path` and `init_args`.
        out: The folder that receives the shards and `codes.json`; all machines see it.
        parts: How many tasks there are: several for each GPU, each with some minutes of work, since every one of them
            loads the tokenizer and lists the pictures first.
        gpus: GPUs of a task. Of 0.5, two tasks share one.
        cpus: Cores of a task, among them one for each of the data's workers.
        retries: How often Ray starts a task again.
        progress: Is told how many parts are done, and of how many.
        options: What else `vltok.tokenize` takes.

    Returns:
        The folder.

    Raises:
        UserError: An argument is wrong, the cluster cannot be reached, or parts failed; finished shards stay.
    """
    whole_number("--parts", parts, 1)
    whole_number("--retries", retries, 0)
    for key, value in (("--gpus", gpus), ("--cpus", cpus)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UserError(f"{key} must be a number from 0 on, not {value!r}")
    allowed = [name for name in inspect.signature(vltok.tokenize).parameters if name not in _OURS]
    for name in options:
        if name not in allowed:
            raise unknown("option of vltok tokenize", name, allowed)
    vltok.fingerprint(tokenizer)  # one line here, and not one of each task
    _connect()
    for name, asked in (("GPU", gpus), ("CPU", cpus)):
        most = max(node["Resources"].get(name, 0) for node in ray.nodes())
        if asked > most:
            _LOG.warning("a part takes %g %s, and no machine has more than %g: parts wait for one", asked, name, most)
    folder = _on_all_machines("--out", out)
    given = {**options, "tokenizer": tokenizer, "data": data, "out": str(folder)}
    if os.path.isdir(tokenizer):
        given["tokenizer"] = str(_on_all_machines("--tokenizer", tokenizer))
    task = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=retries, retry_exceptions=True)(_tokenize_part)
    tell = progress or (lambda done, total: None)
    left: Collection[int] = range(1, parts + 1)
    while left:
        failed: dict[int, str] = {}
        done = parts - len(left)
        for part, said in _run({part: task.remote(f"{part}/{parts}", given) for part in left}):
            if said:
                failed[part] = said
            else:
                done += 1
                tell(done, parts)
        if len(failed) == len(left):
            part, said = min(failed.items())
            raise UserError(f"{how_many(len(failed), 'part')} of {parts} failed, such as {part}/{parts}: {said}")
        left = failed  # what was in their way may have ended with the others
    try:
        vltok.merge([folder])
    except UserError as error:
        raise UserError(f"all parts have ended, but {error}: --out must be a folder that all machines share") from error
    return folder


def _tokenize_part(part: str, given: dict[str, Any]) -> str | None:
    """A part, in a process of Ray's; what is wrong, where the user must mend it: to try again would not help."""
    try:
        vltok.tokenize(**given, part=part)
    except UserError as error:
        return str(error)
    return None


def _run(tasks: Mapping[int, ray.ObjectRef]) -> Iterator[tuple[int, str | None]]:
    """Yield each part as it ends, and why it failed if it did.

    Raises:
        UserError: Two parts say the same, word for word: so would all others.
    """
    parts = {task: part for part, task in tasks.items()}
    said, waiting = set[str](), list(parts)
    try:
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            try:
                wrong = ray.get(ended)
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                yield parts[ended], f"{type(cause).__name__}: {first_line(cause)}"
                continue
            if wrong is not None:
                if wrong in said:
                    raise UserError(wrong)
                said.add(wrong)
            yield parts[ended], wrong
    finally:
        for task in waiting:
            ray.cancel(task)


def _connect() -> None:
    """See that this process is connected to Ray.

    Raises:
        UserError: The cluster cannot be reached.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    try:
        if colon:  # Ray itself tries for a quarter of an hour
            socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT).close()
        ray.init(logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"the Ray cluster at RAY_ADDRESS '{address}'" if address else "Ray on this machine"
        raise UserError(f"{where} cannot be reached: {first_line(error)}") from error


def _on_all_machines(option: str, given: str | os.PathLike) -> Path:
    """A folder as each task finds it: the current folder of a task is not that of this process.

    Raises:
        UserError: There are several machines, and the path is relative.
    """
    path = Path(os.path.expandvars(os.path.expanduser(given)))
    if not path.is_absolute() and sum(node["Alive"] for node in ray.nodes()) > 1:
        raise UserError(
            f"{option} '{given}' is relative, but each machine has its own current folder: write it in full"
        )
    return Path(os.path.abspath(path))
