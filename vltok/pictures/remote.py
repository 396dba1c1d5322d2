"""Files behind addresses: read to their end although connections break, and kept in a folder of bounded size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any, final

import fsspec

from vltok.errors import UserError, first_line
from vltok.files import acquire, written_whole

#: Seconds before a file is asked for again.
WAITS = (1.0, 4.0, 16.0)


def check_protocol(address: str, key: str) -> None:
    """See that there is a way to read an address, before anything is read.

    Args:
        address: What the user gave.
        key: What the user gives it by.

    Raises:
        UserError: There is none, or its package is missing.
    """
    protocol = address.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol.lower())
    except (ValueError, ImportError) as error:
        raise UserError(f"{key} '{address}' cannot be read: {first_line(error)}") from error


@final
class RemoteFile(io.RawIOBase):
    """A file behind an address, such as `https://…` or `s3://…`, read from its start to its end.

    Where reading fails it waits, asks again, and goes on from there.

    Args:
        address: Of a file system that fsspec knows.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._file: Any = None
        self._at = 0
        self._ranges = True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._forget()
        super().close()

    def readinto(self, buffer: Any) -> int:
        for wait in (*WAITS, None):
            try:
                data = self._read(len(buffer))
            except Exception as error:  # each of fsspec's file systems has errors of its own
                self._forget()
                # what a server without ranges comes to; it gives the whole file
                self._ranges &= not isinstance(error, ValueError)
                if wait is None:
                    raise ConnectionError(first_line(error)) from error
                time.sleep(wait)
            else:
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
        raise AssertionError  # the last try returns or raises

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = self._opened()
        data = self._file.read(size)
        whole = getattr(self._file, "size", None)
        if not data and whole is not None and self._at < whole:
            raise ConnectionError(f"it ends after {self._at} of {whole} bytes")
        return data

    def _opened(self) -> Any:
        """The file, where reading goes on."""
        if self._ranges:
            file = fsspec.open(self._address, "rb").open()
            file.seek(self._at)
            return file
        file = fsspec.open(self._address, "rb", block_size=0).open()
        left = self._at
        while left and (skipped := file.read(min(left, io.DEFAULT_BUFFER_SIZE))):
            left -= len(skipped)
        return file

    def _forget(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
        self._file = None


@final
class Copies:
    """A folder of copies of files behind addresses; those that were read longest ago go when it grows too large.

    Several processes may share it. A copy counts for good: what changes behind its address is not seen.

    Args:
        folder: Where they are.
        most: How many bytes they may have together; the newest one is kept however large it is.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most

    def open(self, address: str) -> io.BufferedReader:
        """A file, open; it is fetched whole where there is no copy.

        Raises:
            ConnectionError: It cannot be read.
            OSError: The folder cannot be written.
        """
        path = self._folder / f"{hashlib.sha256(address.encode()).hexdigest()}.copy"
        if (file := _read_again(path)) is not None:
            return file
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(path.with_suffix(".lock"), seconds=-1)
        try:
            # another process may have fetched it meanwhile
            if (file := _read_again(path)) is not None:
                return file
            with written_whole(path) as temporary, temporary.open("wb") as copy, RemoteFile(address) as remote:
                shutil.copyfileobj(io.BufferedReader(remote, 2**20), copy, 2**20)
            file = path.open("rb")
        finally:
            lock.release()
        self._make_room()
        return file

    def _make_room(self) -> None:
        found = []
        for path in self._folder.glob("*.copy"):
            with contextlib.suppress(FileNotFoundError):
                found.append((path.stat(), path))
        newest = sorted(found, key=lambda each: each[0].st_mtime_ns, reverse=True)
        sizes = itertools.accumulate(state.st_size for state, _ in newest)
        for size, (_, path) in list(zip(sizes, newest, strict=True))[1:]:
            if size > self._most:
                path.unlink(missing_ok=True)


def _read_again(path: Path) -> io.BufferedReader | None:
    """A copy, open, which counts as read; None where there is none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with contextlib.suppress(FileNotFoundError):  # another process has removed it meanwhile: it is open here
        os.utime(path)
    return file
