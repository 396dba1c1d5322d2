"""Shards in an object store that speaks S3 and fails: slow, cut, busy, and gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import skimage.data
from PIL import Image

from vltok.errors import UserError
from vltok.pictures import remote
from vltok.pictures.remote import RemoteFile
from vltok.pictures.shards import WebDataset
from vltok.pictures.tars import read_samples
from vltok.verbs.pack import pack

_REASON = "an S3 store of its own needs more: pip install 'moto[server]' s3fs"
s3fs = pytest.importorskip("s3fs", reason=_REASON)
moto_server = pytest.importorskip("moto.server", reason=_REASON)
serving = pytest.importorskip("werkzeug.serving", reason=_REASON)

pytestmark = pytest.mark.faults

_PICTURES, _SHARD = 12, 6
_BUSY, _GONE = "503 Slow Down", "404 Not Found"


class Store:
    """A server of moto's, whose answers to requests for content can be broken.

    Attributes:
        faults: What happens to the next requests for content: a status, so many bytes of the answer, "slow", or None
            for nothing.
        asked: The range of each request for content.
    """

    def __init__(self) -> None:
        self._store = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
        self.faults: list[int | str | None] = []
        self.asked: list[str] = []
        self._server = serving.make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()

    def _answer(self, asked: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        content = asked["REQUEST_METHOD"] == "GET" and asked["PATH_INFO"].endswith(".tar")
        fault = None
        if content:
            self.asked.append(asked.get("HTTP_RANGE", "all"))
            fault = self.faults.pop(0) if self.faults else None
        if fault in (_BUSY, _GONE):
            start(fault, [("Content-Length", "0")])
            return [b""]
        if fault == "slow":
            time.sleep(0.3)
        answer = b"".join(self._store(asked, start))
        return [answer[:fault] if isinstance(fault, int) else answer]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two shards of crops of a photograph."""
    photo = Image.fromarray(skimage.data.astronaut())
    (tmp_path / "pictures").mkdir()
    for number in range(_PICTURES):
        photo.crop((20 * number, 0, 20 * number + 200, 200)).save(tmp_path / "pictures" / f"{number:02d}.png")
    pack(tmp_path / "pictures", f"{tmp_path}/train-%06d.tar", count=_SHARD)
    return sorted(tmp_path.glob("train-*.tar"))


@pytest.fixture
def store(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket with the shards, found as users have theirs found."""
    store = Store()
    for name, value in {
        "AWS_ENDPOINT_URL": store.address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=lambda seconds: None))
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.makedirs("pictures", exist_ok=True)  # stores of one process are one
    for shard in shards:
        files.put(str(shard), f"pictures/{shard.name}")
    # as much as it asks for at a time is all of these shards otherwise
    monkeypatch.setattr(s3fs.S3FileSystem, "default_block_size", 2**16)
    s3fs.S3FileSystem.clear_instance_cache()
    yield store
    store.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "faults",
    [[], ["slow", "slow"], [None, 1000], [_BUSY, None, _BUSY], [None, _GONE], [None, 0, "slow", _BUSY, _GONE, 500]],
    ids=["none", "slow", "cut", "busy", "gone", "all"],
)
def test_a_shard_is_read_whole_whatever_happens(
    store: Store, shards: list[Path], faults: list[int | str | None], row: Callable[..., None], request: Any
) -> None:
    row(f"an object store, {request.node.callspec.id}", "fit")
    whole = shards[0].read_bytes()
    store.faults = list(faults)
    with RemoteFile(f"s3://pictures/{shards[0].name}") as file:
        assert file.read() == whole
    assert not store.faults
    assert len(store.asked) >= 2 + sum(fault not in (None, "slow") for fault in faults)


def test_what_has_vanished_is_one_line(store: Store, row: Callable[..., None]) -> None:
    row("an object store, never there", "fit")
    with pytest.raises(UserError, match=r"shard 's3://pictures/none\.tar' cannot be read \(.*fetch or pack it again"):
        list(read_samples("s3://pictures/none.tar"))


def test_training_and_exports_read_it_as_they_read_files(
    store: Store, shards: list[Path], tmp_path: Path, row: Callable[..., None]
) -> None:
    row("an object store, behind copies", "fit")
    pattern, options = "train-{000000..000001}.tar", {"size": 16, "workers": 0, "batch_size": 3}
    store.faults = [None, _BUSY, 700, "slow", _GONE]
    behind = WebDataset(f"s3://pictures/{pattern}", **options, copies=str(tmp_path / "copies"))
    local = WebDataset(f"{tmp_path}/{pattern}", **options)
    assert list(behind.export_source("all").keys()) == list(local.export_source("all").keys())
    fetched = len(store.asked)
    training = WebDataset(
        f"s3://pictures/{pattern}", **options, samples_per_epoch=9, copies=str(tmp_path / "copies")
    ).train_dataloader()
    assert sum(len(batch) for batch in training) == 9
    assert len(store.asked) == fetched  # all of it comes from the copies
