"""Tar shards as files: compressed, cut, joined, or behind an address that fails."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from vltok.errors import UserError
from vltok.pictures import tars
from vltok.pictures.shards import WebDataset
from vltok.pictures.tars import read_samples

Write = Callable[..., str]


def pack(names: list[str], kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in names:
            header = tarfile.TarInfo(name)
            header.size, header.type = (3, kind) if kind == tarfile.REGTYPE else (0, kind)
            tar.addfile(header, io.BytesIO(b"abc"))
    return file.getvalue()


def keys(shard: Path | str) -> list[str]:
    return [sample.key for sample in read_samples(str(shard))]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_shards_and_what_is_cut_off_them(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    shard = tmp_path / "a.tar"
    whole = compress(pack([f"{index}.jpg" for index in range(9)]))
    shard.write_bytes(whole)
    assert keys(shard) == [str(index) for index in range(9)]
    for size in range(0, len(whole) - (10240 if compress is bytes else 8), max(len(whole) // 40, 1)):
        shard.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"shard '.*a\.tar' cannot be read \("):
            list(read_samples(str(shard)))


def test_shards_that_were_joined_or_broken_are_not_read_in_part(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    one, two = pack(["0.jpg"]), pack(["1.jpg"])
    shard.write_bytes(one + two)
    with pytest.raises(UserError, match="more tar files follow its end"):
        list(read_samples(str(shard)))
    two = pack(["0.jpg", "1.jpg"])
    shard.write_bytes(two[:1024] + b"?" * 512 + two[1536:])
    with pytest.raises(UserError, match="a header in it is broken"):
        list(read_samples(str(shard)))


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_zstd_works_as_the_error_says(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(pack(["0.jpg"]))
    subprocess.run(["zstd", "-q", str(tmp_path / "a.tar")], check=True)
    with pytest.raises(UserError, match=r"it is compressed by zstd: give it as 'pipe:zstd -dc FILE'"):
        keys(tmp_path / "a.tar.zst")
    assert keys(f"pipe:zstd -dc {tmp_path / 'a.tar.zst'}") == ["0"]


def test_empty_shards_and_links(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(pack([]))
    assert keys(tmp_path / "a.tar") == []
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read"):
        keys(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(pack(["0.jpg"], tarfile.LNKTYPE))
    with pytest.raises(UserError, match=r"'0\.jpg' of shard .* is a link"):
        keys(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(pack(["0.jpg"], tarfile.DIRTYPE))
    assert keys(tmp_path / "a.tar") == []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    # threads of libraries sleep too
    monkeypatch.setattr(tars, "time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.mark.parametrize("allowed", [0.0, 0.3])
def test_share_of_bad_remote_shards(write: Write, waits: list[float], tmp_path: Path, allowed: float) -> None:
    write(4, 4, 4, 4)
    bad = tmp_path / "train-002.tar"
    bad.write_bytes(bad.read_bytes()[:1700])
    address = f"pipe:cat {tmp_path}/train-{{000..003}}.tar"
    data = WebDataset(address, size=8, batch_size=2, workers=0, samples_per_epoch=16, max_bad_shards=allowed)
    loaders = [data.export_dataloader, data.train_dataloader]
    for load in loaders:
        if allowed and load == loaders[0]:
            with pytest.warns(UserWarning, match=r"left out: shard 'pipe:.*train-002\.tar' cannot be read"):
                assert len([key for batch in load() for key in batch.keys]) == 12
        elif allowed:
            assert sum(len(batch) for batch in load()) == 16  # warned of before
        else:
            with pytest.raises(UserError, match=r"train-002\.tar' cannot be read"):
                list(load())


def test_too_many_bad_remote_shards(write: Write, waits: list[float], tmp_path: Path) -> None:
    write(4, 4)
    for name in ("train-000.tar", "train-001.tar"):
        (tmp_path / name).write_bytes(b"")
    data = WebDataset(f"pipe:cat {tmp_path}/train-{{000..001}}.tar", batch_size=2, workers=0, max_bad_shards=0.5)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(UserError, match=r"2 or more of 2 shards.*data\.max_bad"),
    ):
        list(data.export_dataloader())
