"""What is printed to nobody, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PRINT = """
import os, sys
from vltok.cli.streams import print_leniently
print_leniently()
for _ in range(2000):
    print("é" * 100)
    print("é" * 100, file=sys.stderr)
opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
assert opened > 2, "a file of ours got a closed stream's number"
os.write(opened, b"written")
"""


@pytest.mark.parametrize("descriptor", [1, 2])
@pytest.mark.parametrize("how", ["closed", "broken pipe", "full disk"])
def test_what_is_printed_costs_no_work(descriptor: int, how: str, tmp_path) -> None:
    def harm() -> None:
        if how == "closed":
            os.close(descriptor)
        elif how == "full disk":
            os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
        else:
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, descriptor)

    command = [sys.executable, "-c", _PRINT, str(tmp_path / "file")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, capture_output=True, preexec_fn=harm, env=environment, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "file").read_bytes() == b"written"
    assert b"\\xe9" in (ended.stderr if descriptor == 1 else ended.stdout)


_FAIL = """
import sys, threading
from vltok.cli.main import main
sys.argv = ["vltok", "--version"]
main()
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Thing:
    def __del__(self):
        1 / 0
Thing()
"""


def test_what_fails_in_the_background_is_a_line() -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    ended = subprocess.run([sys.executable, "-c", _FAIL], capture_output=True, text=True, env=environment, timeout=60)
    line = "vltok: warning: in the background: ZeroDivisionError: division by zero\n"
    assert ended.stderr == 2 * line and ended.returncode == 0
