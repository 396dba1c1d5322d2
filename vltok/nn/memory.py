"""The memory of this process while networks compute on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# glibc's numbers (malloc.h) of the most blocks that are mapped one by one, and of the free bytes that go back at once
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
# what both are where a process has used large blocks
_MAPPED, _TRIMMED = 65536, 2**26


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Keep inside the block what is freed, and give it back to the system afterwards.

    The C library returns large blocks at once, such as the feature maps of a few pictures, and the system fills every
    page of the next one with zeros, which takes as long as a norm does. C libraries other than glibc stay as they are.
    """
    try:
        library = ctypes.CDLL(None)
        choose, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    choose(_MMAP_MAX, 0)
    choose(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        choose(_MMAP_MAX, _MAPPED)
        choose(_TRIM_THRESHOLD, _TRIMMED)
        trim(0)
