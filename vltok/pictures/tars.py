"""Reading tar shards, which lie on this machine or behind an address."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import braceexpand
from webdataset.gopen import Pipe, gopen

from vltok.errors import UserError
from vltok.paths import find_files
from vltok.pictures.remote import WAITS, Copies, RemoteFile, check_protocol
from vltok.pictures.samples import Finding, Member, TarSample, refuse_losses, samples_of

_ADDRESS = re.compile(r"pipe:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CUT = "it was cut short: the mark at the end of a tar file is missing"
_BROKEN = "a header in it is broken"
_REMEDY = (
    "give tar files, with braces or wildcards, such as 'shards/train-{000000..000146}.tar' or 'shards/*.tar' (vltok "
    "pack writes them)"
)
_JOINED = "more tar files follow its end, which 'tar -A' joins, but 'cat' does not: take them apart"
_ZSTD = b"\x28\xb5\x2f\xfd"


class UnreadableShard(UserError):
    """A shard that cannot be read to its end."""


def list_shards(pattern: str, key: str) -> list[str]:
    """The shards that a pattern stands for: see `find_files`; addresses have braces alone.

    Args:
        pattern: What the user gave.
        key: What the user gives it by.

    Raises:
        UserError: A local shard that does not exist, or a pattern that matches none.
    """
    if is_address(pattern):
        if not _is_pipe(pattern):
            check_protocol(pattern, key)
        try:
            return list(braceexpand.braceexpand(pattern))
        except ValueError as error:
            raise UserError(f"{key} '{pattern}': {error}; write braces such as {{000..146}}") from error
    found = find_files(key, pattern, f"; {_REMEDY}")
    # a wildcard may take in what `vltok pack` has written beside them
    shards = [shard for shard in found if not (len(found) > 1 and shard.endswith(".json"))]
    for shard in shards:
        if os.path.isdir(shard):
            raise UserError(f"{key} '{pattern}': '{shard}' is a folder; {_REMEDY}")
    return shards


def is_address(shard: str) -> bool:
    """Whether a shard is read from elsewhere (`https://…`, `pipe:…`), so that it cannot be looked into beforehand."""
    return _ADDRESS.match(shard) is not None


def _is_pipe(shard: str) -> bool:
    """Whether a program gives it."""
    return shard[:5].lower() == "pipe:"


def read_samples(
    shard: str,
    tell: Callable[[Finding], None] = refuse_losses,
    picture: str | None = None,
    copies: Copies | None = None,
    embeddings: str | None = None,
) -> Iterator[TarSample]:
    """The samples of a shard, in order; one behind an address is asked for again a few times where reading it fails.

    Pictures that lie on a disk, uncompressed, are leapt over unless somebody reads them.

    Args:
        shard: A path or an address.
        tell: Is told what is odd: see `samples_of`.
        picture: The ending of the pictures, where samples hold several.
        copies: Keeps what is behind addresses; None keeps nothing.
        embeddings: The ending of the pictures' embeddings; None looks for none.

    Raises:
        UnreadableShard: It is no tar file, or only part of one, or its address does not answer.
        UserError: What `tell` raises.
    """
    given = 0
    # what a program gives is begun anew; others go on where they were cut
    for wait in itertools.chain(WAITS if _is_pipe(shard) else (), [None]):
        try:
            found = samples_of(shard, members_of(shard, copies), tell, picture, embeddings)
            for sample in itertools.islice(found, given, None):
                given += 1
                yield sample
            return
        except UnreadableShard:
            if wait is None:
                raise
            time.sleep(wait)


def members_of(shard: str, copies: Copies | None = None) -> Iterator[Member]:
    """The members of a shard, from its start to its end, whether or not it is compressed.

    Args:
        shard: A path or an address.
        copies: Keeps what is behind addresses; None keeps nothing.

    Raises:
        UnreadableShard: It is no tar file, or only part of one, or its address does not answer.
    """
    with _explained(shard), _opened(shard, copies) as file:
        # what lies on a disk can be leapt over; a copy may be gone when a picture is read
        seeks = not is_address(shard) and isinstance(file, io.BufferedReader) and file.seekable()
        tail = _Tail(file)
        with tarfile.open(fileobj=file, mode="r:") if seeks else tarfile.open(fileobj=tail, mode="r|") as tar:
            for header in tar:
                link = header.issym() or header.islnk()
                if header.isreg() or link:
                    apart = seeks and not header.issparse()
                    yield Member(header.name, partial(_content, shard, None if apart else tar, header), link, apart)
                vars(tar)["members"] = []  # or it keeps every header
            if seeks:
                file.seek(tar.offset)
            _check_end(tail.rest(0 if seeks else tar.offset))


def _content(shard: str, tar: tarfile.TarFile | None, header: tarfile.TarInfo) -> bytes:
    """What a member holds: read from where the tar file stands, or, without one, from its place on the disk."""
    with _explained(shard):
        if tar is None:
            with open(shard, "rb") as file:
                file.seek(header.offset_data)
                content = file.read(header.size)
        else:
            member = tar.extractfile(header)
            content = b"" if member is None else member.read()
        if len(content) != header.size:
            raise EOFError(_CUT)
    return content


@contextlib.contextmanager
def _explained(shard: str) -> Iterator[None]:
    """Say of an error which shard cannot be read."""
    try:
        yield
    except (OSError, ValueError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        reason = str(error.args[0]) if error.args else type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise UnreadableShard(
            f"shard '{shard}' cannot be read ({reason}): fetch or pack it again, or leave it out of the pattern"
        ) from error


@contextlib.contextmanager
def _opened(shard: str, copies: Copies | None) -> Iterator[io.BufferedIOBase]:
    """The bytes of the tar file in a shard, uncompressed."""
    if not _is_pipe(shard):
        with _open(shard, copies) as file:
            yield _uncompressed(file)
        return
    stream = gopen(shard)
    try:
        yield _uncompressed(io.BufferedReader(_Raw(stream)))
    except BaseException:
        if isinstance(stream, Pipe):
            stream.proc.kill()  # nobody wants the rest: it is no failure that it cannot be written
            stream.proc.wait()
        raise
    stream.close()  # raises what the program at the other end of a pipe says of itself


def _open(shard: str, copies: Copies | None) -> io.BufferedReader:
    """A path or an address, open."""
    if not is_address(shard):
        return open(shard, "rb")
    return io.BufferedReader(RemoteFile(shard)) if copies is None else copies.open(shard)


def _uncompressed(file: io.BufferedReader) -> io.BufferedIOBase:
    start = file.peek(len(_ZSTD))
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(file)
    if start.startswith(_ZSTD):
        raise ValueError("it is compressed by zstd: give it as 'pipe:zstd -dc FILE', or pack it without")
    return file


class _Raw(io.RawIOBase):
    """What `gopen` opens, as a file of Python's."""

    def __init__(self, stream: IO[bytes] | Pipe) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Tail(io.RawIOBase):
    """A file that is read from start to end, of which the last piece read can be seen once more."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._piece, self._end = b"", 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        if piece:
            self._piece, self._end = piece, self._end + len(piece)
        return piece

    def rest(self, start: int) -> Iterator[bytes]:
        """The bytes from a place on, which the last piece read holds, unless nothing was read."""
        yield self._piece[max(start - self._end + len(self._piece), 0) :] if start < self._end else b""
        while piece := self._file.read(tarfile.RECORDSIZE):
            yield piece


def _check_end(rest: Iterator[bytes]) -> None:
    """See that a tar file ends where its members do: tarfile takes a cut or a broken header for an end."""
    mark = b""
    for piece in rest:
        whole = len(mark) >= tarfile.BLOCKSIZE
        mark += b"" if whole else piece[: tarfile.BLOCKSIZE - len(mark)]
        if any(piece[place + 257 : place + 262] == b"ustar" for place in range(0, len(piece), tarfile.BLOCKSIZE)):
            raise EOFError(_JOINED if whole or not any(mark) else _BROKEN)
    if len(mark) < tarfile.BLOCKSIZE:
        raise EOFError(_CUT)
    if any(mark):
        raise EOFError(_BROKEN)
