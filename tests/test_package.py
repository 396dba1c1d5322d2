"""The package as a notebook meets it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import vltok

SOURCE = Path(vltok.__file__)


def test_every_public_name_is_there_and_completion_shows_it() -> None:
    assert set(vltok.__all__) <= set(dir(vltok))
    for name in vltok.__all__:
        assert getattr(vltok, name) is not None


def test_editors_see_the_same_names() -> None:
    """What `TYPE_CHECKING` imports is what the lazy table gives, from the same modules."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: statement.module for statement in block.body for alias in statement.names}
    assert seen == vltok._LAZY


def test_types_are_published() -> None:
    assert (SOURCE.parent / "py.typed").is_file()


def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path: Path) -> None:
    """A clone is DIR/vltok: from DIR, Python sees a folder without `__init__.py` first."""
    (tmp_path / "vltok").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = "import vltok; print(vltok.__file__, vltok.shipped_recipes.__name__)"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[1] == "shipped_recipes"


_AS_WINDOWS = """
import importlib, os, pkgutil, signal, sys
import filelock, huggingface_hub, jsonargparse, lightning.pytorch, matplotlib.pyplot, multiprocessing.popen_fork
import multiprocessing.resource_tracker, subprocess, tensorboard.compat, timm, torchmetrics, torchvision, webdataset
assert not [name for name in sys.modules if name.startswith("vltok")]
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
kept = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
for name in {name for name in dir(signal) if name[:3] == "SIG" and name[3] != "_"} - kept:
    delattr(signal, name)
for name in ("pthread_sigmask", "setitimer", "alarm"):
    delattr(signal, name)
for name in ("fork", "killpg", "setsid", "geteuid", "getuid", "sched_getaffinity", "statvfs", "uname", "mkfifo"):
    delattr(os, name)
import vltok
for module in pkgutil.walk_packages(vltok.__path__, "vltok."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from vltok.cli.main import VERBS, main
for verb in VERBS:
    assert main([verb, "--help"]) == 0, verb
"""


def test_every_module_and_verb_does_without_what_windows_lacks() -> None:
    ended = subprocess.run([sys.executable, "-c", _AS_WINDOWS], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
