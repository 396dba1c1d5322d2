"""Runs commands in children of a process that has imported everything and built nothing: a command costs milliseconds.

It reads one command a line from its input, and answers each with its exit code: `WarmProcess` speaks to it.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

#: What a command may take, in bytes of address space: a size out of all bounds fails here, and not the machine.
_MEMORY = 12 << 30
#: The exit code of a command that had to be killed for the time that it took.
HANGS = -1000


class WarmProcess:
    """A process that has imported everything, and whose children run commands one after another."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, "-c", "from tests.rubbish.warm import serve; serve()"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self, arguments: Sequence[str], folder: Path, printed: Path, seconds: float, environment: Mapping[str, str]
    ) -> int:
        """The exit code of a `vltok` command; `HANGS` where it had to be killed, -n where signal n ended it.

        Args:
            arguments: What follows `vltok`.
            folder: Where it runs.
            printed: Receives what it prints, with `.out` and `.err` added.
            seconds: After which it is killed.
            environment: Variables that it sees besides those of this process.
        """
        command = {
            "arguments": list(arguments),
            "folder": str(folder),
            "printed": str(printed),
            "seconds": seconds,
            "environment": dict(environment),
        }
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> "WarmProcess":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Answer commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    _import_everything()
    gc.freeze()  # children then share the memory of what is there
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(**command)
        answers.write(f"{_wait(child, command['seconds'])}\n")
        answers.flush()


def _import_everything() -> None:
    import vltok

    for module in pkgutil.walk_packages(vltok.__path__, "vltok."):
        if not module.name.endswith("__main__") and not module.name.startswith("vltok.testing"):
            importlib.import_module(module.name)
    import tensorboard.compat  # noqa: F401
    import torch

    torch.set_num_threads(1)


def _run(
    arguments: list[str], folder: str, printed: str, seconds: float, environment: dict[str, str]
) -> None:  # never returns
    code = 1
    try:
        os.setsid()  # what it starts is killed with it
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.chdir(folder)
        os.environ.update(environment)
        for descriptor, ending in ((1, ".out"), (2, ".err")):
            file = os.open(printed + ending, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, descriptor)
        # a terminal that is no UTF-8 one
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        sys.stdin = io.TextIOWrapper(io.FileIO(os.open(os.devnull, os.O_RDONLY)))
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding, errors="backslashreplace")
        sys.path.insert(0, "")  # as `python -m vltok` has it
        code = _main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _main(arguments: list[str]) -> int:
    from vltok.cli.main import main

    sys.argv = ["vltok", *arguments]
    return main()  # without arguments, as the program calls it


def _wait(child: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(child)  # what it may have left running
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    _kill(child)
    os.waitpid(child, 0)
    return HANGS


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
