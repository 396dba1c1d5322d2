"""Faults that are brought into a process before `vltok` starts there. Each is the real one: the kernel refuses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
#: The exit code of a process in which a fault could not be brought about.
NOT_PERMITTED = 77
#: What standard error holds where the moment of a fault has come.
HAPPENED = "\n[the fault happens]\n"


def fill_disk_at(pattern: str, mount: Path | None, free: int = 0) -> None:
    """Fill the disk at the moment when a file or folder is made whose path matches a pattern.

    Args:
        pattern: A regular expression of the path.
        mount: A small file system of its own, which is filled to the last page. Without one no file may grow from
            then on, which needs no privilege: the system calls fail in the same places, with EFBIG for ENOSPC.
        free: The bytes that are left.
    """
    _at(pattern, lambda: fill(mount, free))


def fill(mount: Path | None, free: int = 0) -> None:
    """Fill a small file system up to some bytes, or let no file grow above them."""
    if mount is None:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, most))
        return
    with contextlib.suppress(OSError), (mount / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with (mount / "filler").open("r+b") as file:
        file.truncate(max(file.seek(0, os.SEEK_END) - free, 0))


def without_root() -> None:
    """Give up root's power to write where permissions forbid it; processes that are started have none either."""
    if os.geteuid() == 0:
        _LIBC.prctl(28, 3, 0, 0, 0)  # PR_SET_SECUREBITS, SECBIT_NOROOT and its lock
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if _LIBC.capset(header, nothing):
            os._exit(NOT_PERMITTED)


def small_shared_memory() -> None:
    """Mount 4 MB on /dev/shm, for this process and those that it starts."""
    uid, gid = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEW_MOUNTS):
        if _LIBC.unshare(_NEW_USER | _NEW_MOUNTS):
            os._exit(NOT_PERMITTED)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    if _LIBC.mount(b"none", b"/", None, _PRIVATE, None) or _LIBC.mount(b"shm", b"/dev/shm", b"tmpfs", 0, b"size=4m"):
        os._exit(NOT_PERMITTED)


def limit_memory(megabytes: int) -> None:
    """Let the process have so much memory more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run_out_of_device_memory(calls: int) -> None:
    """Raise at the so-manieth linear or convolutional layer what PyTorch raises when a GPU has no memory left."""
    left = calls

    def count(layer: nn.Module, inputs: tuple) -> None:
        nonlocal left
        if isinstance(layer, nn.Linear | nn.Conv2d):
            left -= 1
        if left < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total …")

    nn.modules.module.register_module_forward_pre_hook(count)


def limit_files(count: int) -> None:
    """`ulimit -n`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def limit_processes() -> None:
    """`ulimit -u 0`, which does not bind root."""
    if os.geteuid() == 0:
        os._exit(NOT_PERMITTED)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def close(descriptor: int) -> None:
    """Close standard output (1) or standard error (2), as `>&-` does."""
    os.close(descriptor)


def break_pipe(descriptor: int) -> None:
    """Let standard output or error be a pipe that nobody reads, as after `| head`."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, descriptor)
    os.close(write)


def remove_at(pattern: str, path: str) -> None:
    """Remove a file or a folder at the moment when one is made whose path matches a pattern."""
    _at(pattern, lambda: shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path))


def _at(pattern: str, fault: Callable[[], None]) -> None:
    """Call a function once, at the moment when a file is opened for writing or a folder is made in such a place."""
    wanted = re.compile(pattern)
    happened = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal happened
        if happened or event not in ("open", "os.mkdir") or isinstance(arguments[0], int):
            return
        writes = event == "os.mkdir" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and wanted.search(os.fsdecode(arguments[0])):
            happened = True
            os.write(2, HAPPENED.encode())
            fault()

    sys.addaudithook(watch)
