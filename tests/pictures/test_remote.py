"""Shards behind addresses: a web server that fails in many ways, a store in memory, and copies of bounded size."""

import http.server
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from fsspec.implementations.http import HTTPFileSystem

from vltok.errors import UserError
from vltok.pictures import remote
from vltok.pictures.remote import Copies, RemoteFile
from vltok.pictures.shards import WebDataset
from vltok.pictures.tars import read_samples

from .test_tars import Write, keys


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, by ranges where it is asked for them.

    Attributes:
        faults: What happens to the next requests for content: an error's number, so many bytes of the answer, or
            None for nothing.
        ranges: Whether it knows ranges.
        asked: The first byte of each request for content.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: list[int | str | None] = []
        self.ranges = True
        self.asked: list[int] = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self._answer(b"", (self.server.folder / self.path.lstrip("/")).stat().st_size, 200)

    def do_GET(self) -> None:
        content = (self.server.folder / self.path.lstrip("/")).read_bytes()
        first, last = 0, len(content) - 1
        if asked := self.server.ranges and self.headers["Range"]:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
        self.server.asked.append(first)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault in (404, 503):
            self.send_error(fault)
            return
        if fault == "slow":
            time.sleep(0.05)
            fault = None
        part = content[first : last + 1]
        self._answer(part[:fault], len(part), 206 if asked else 200)

    def _answer(self, part: bytes, size: int, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Asks for 4,000 bytes at a time."""
    opened = HTTPFileSystem._open
    few = {"block_size": 4000, "cache_type": "readahead"}
    monkeypatch.setattr(
        HTTPFileSystem,
        "_open",
        lambda self, path, **given: opened(self, path, **{**given, **(few if self.block_size else {"block_size": 0})}),
    )
    server = Server(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.mark.parametrize(
    "faults", [[], ["slow", "slow"], [100], [503], [None, 1500], [None, None, 404, 503], [None, 0, None, 404, 503, 10]]
)
def test_reading_goes_on_where_it_was_cut(faults: list, write: Write, served: Server, waits: list, tmp_path: Path):
    write(6)
    whole = (tmp_path / "train-000.tar").read_bytes()
    assert len(whole) > 8000
    served.faults = list(faults)
    with RemoteFile(f"{served.address}/train-000.tar") as file:
        assert file.read() == whole
    assert not served.faults
    failed = [fault for fault in faults if fault not in (None, "slow")]
    assert len(waits) == len(failed) and all(wait in remote.WAITS for wait in waits)
    if failed:  # what was read before is not asked for again
        assert served.asked.count(0) == 1 + (faults[0] in failed)
    assert keys(f"{served.address}/train-000.tar") == keys(tmp_path / "train-000.tar")


def test_what_never_comes_is_one_line_after_growing_waits(write: Write, served: Server, waits: list):
    write(6)
    served.faults = [None, *[503] * 4]
    with pytest.raises(
        UserError, match=r"shard 'http://.*train-000\.tar' cannot be read \(503.*fetch or pack it again"
    ):
        keys(f"{served.address}/train-000.tar")
    assert waits == list(remote.WAITS)


def test_a_server_without_ranges_gives_the_whole(write: Write, served: Server, waits: list, tmp_path: Path):
    write(6)
    served.ranges = False
    assert keys(f"{served.address}/train-000.tar") == keys(tmp_path / "train-000.tar")
    served.faults = [None, 9000]
    assert keys(f"{served.address}/train-000.tar") == keys(tmp_path / "train-000.tar")


def test_a_store_in_memory(write: Write, tmp_path: Path) -> None:
    write(6)
    with fsspec.open("memory://shards/a.tar", "wb") as file:
        file.write((tmp_path / "train-000.tar").read_bytes())
    assert keys("memory://shards/a.tar") == keys(tmp_path / "train-000.tar")


@pytest.mark.parametrize(
    ("address", "said"),
    [("carrier://pigeon/{000..001}.tar", "Protocol not known: carrier"), ("s3://bucket/a.tar", "Install s3fs")],
)
def test_what_cannot_be_read_is_said_before_anything_is(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=rf"data\.shards '{address}' cannot be read: {said}"):
        WebDataset(address)


def test_copies_are_kept_until_they_take_too_much(write: Write, served: Server, tmp_path: Path) -> None:
    write(6, 6, 6)
    size = (tmp_path / "train-000.tar").stat().st_size
    folder = tmp_path / "copies"
    copies = Copies(folder, int(size * 2.5))

    def read(number: int) -> int:
        """A shard, and how often its server was asked."""
        served.asked.clear()
        found = [sample.key for sample in read_samples(f"{served.address}/train-00{number}.tar", copies=copies)]
        assert found == keys(tmp_path / f"train-00{number}.tar")
        for path in folder.glob("*.copy"):  # file systems may have coarse clocks
            os.utime(path, ns=(path.stat().st_mtime_ns - 10**9,) * 2)
        return len(served.asked)

    assert read(0) and read(1)
    assert not read(0) and not read(1) and not read(0)
    assert read(2)  # the second one has not been read for longest
    assert sum(path.stat().st_size for path in folder.glob("*.copy")) <= size * 2.5
    assert not read(0) and read(1)


def test_training_reads_addresses_through_copies(write: Write, served: Server, waits: list, tmp_path: Path) -> None:
    write(4, 4)
    options = {"size": 8, "batch_size": 2, "workers": 0, "samples_per_epoch": 8, "copies": str(tmp_path / "copies")}
    data = WebDataset(f"{served.address}/train-00{{0,1}}.tar", **options)
    served.faults = [None, 503, 700]
    first = [key for batch in data.export_dataloader() for key in batch.keys]
    assert len(set(first)) == 8 and len(waits) == 2
    served.asked.clear()
    assert sum(len(batch) for batch in data.train_dataloader()) == 8
    assert not served.asked


def test_an_export_reads_addresses_as_it_reads_files(write: Write, served: Server, tmp_path: Path) -> None:
    write(5, 4)
    names = f"{tmp_path}/train-00{{0,1}}.tar", f"{served.address}/train-00{{0,1}}.tar"
    options = {"size": 8, "workers": 0, "copies": str(tmp_path / "copies")}
    local, behind = (WebDataset(name, **options).export_source("all") for name in names)
    assert behind.pictures == 9 and list(behind.keys()) == list(local.keys())
    served.asked.clear()
    for one, other in zip(local.read(range(9)), behind.read(range(9)), strict=True):
        assert one.key == other.key and torch.equal(one.pixels, other.pixels)
    assert not served.asked
    with pytest.raises(UserError, match=r"give a folder for copies of shards behind addresses \(data\.copies\)"):
        WebDataset(names[1], size=8, workers=0).export_source("all")
