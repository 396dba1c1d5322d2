"""Standard output and error that never cost work: what cannot be printed is let go."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lenient(io.RawIOBase):
    """Bytes to a descriptor; those that it does not take (nobody reads, the disk is full) are lost.

    Args:
        descriptor: Where they go.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


def print_leniently() -> None:
    """Let nothing that is printed from here on raise an error, in this process or in those that it starts.

    A descriptor that is closed would be given to the next file that is opened, into which all would then be printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = _lenient(1, sys.stdout), _lenient(2, sys.stderr)


def _lenient(descriptor: int, stream: TextIO | None) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    line_by_line = descriptor == 2 or os.isatty(descriptor)
    raw = io.BufferedWriter(_Lenient(descriptor))
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=line_by_line)
