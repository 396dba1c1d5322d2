import dataclasses
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.sequences.shards import CodeSample, codes_of, parse_tar_sample, shard_format, smallest_unsigned

from .code_exports import random_codes, samples_of

FORMATS = ["webdataset", "parquet"]


def same(first: CodeSample, second: CodeSample) -> bool:
    grains = (first.grains is None and second.grains is None) or np.array_equal(first.grains, second.grains)
    names = ("index", "key", "label", "text")
    embeddings = [np.array([]) if each.embedding is None else each.embedding for each in (first, second)]
    return (
        grains
        and np.array_equal(*embeddings)
        and embeddings[0].dtype == embeddings[1].dtype
        and np.array_equal(first.ids, second.ids)
        and all(getattr(first, name) == getattr(second, name) for name in names)
    )


@st.composite
def shards(draw) -> tuple[int, list[CodeSample]]:
    factors = draw(st.sampled_from([(16,), (8, 16), (8, 16, 32), (4, 8, 16, 32)]))
    size = draw(st.sampled_from([1, 2, 256, 257, 65536, 65537]))
    count = draw(st.integers(0, 4))
    grid = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    spec = CodeSpec(size, factors, codebooks=draw(st.integers(1, 3)))
    codes = random_codes(count, spec, grid, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()):
        codes = dataclasses.replace(codes, embeddings=torch.randn(count, draw(st.integers(1, 3))))
    keys = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=300), min_size=count, max_size=count))
    labels = draw(st.lists(st.none() | st.integers(0, 10**6), min_size=count, max_size=count))
    texts = draw(st.lists(st.none() | st.text(st.characters(codec="utf-8")), min_size=count, max_size=count))
    return size, [
        CodeSample(sample.index * 3, key, sample.ids, sample.grains, label, text, sample.embedding)
        for sample, key, label, text in zip(samples_of(codes), keys, labels, texts, strict=True)
    ]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=30, deadline=None)
@given(shard=shards())
def test_what_is_written_is_read(name, shard, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("shards") / "shard"
    size, samples = shard
    shard_format(name).write(path, samples, size)
    found = list(shard_format(name).read(path))
    assert len(found) == len(samples)
    assert all(map(same, found, samples))
    assert all(sample.ids.dtype == smallest_unsigned(size) for sample in found)


@settings(max_examples=20, deadline=None)
@given(shard=shards())
def test_samples_are_found_at_their_places(shard, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("shards") / "shard.tar"
    size, samples = shard
    places = shard_format("webdataset").write(path, samples, size)
    content = path.read_bytes()
    for sample, (start, length) in zip(samples, places, strict=True):
        assert same(parse_tar_sample(content[start : start + length]), sample)


def test_codes_that_lie_on_no_grid(tmp_path) -> None:
    for ids in (np.array([3, 1, 2]), np.array([[3, 1], [0, 2]]), np.zeros((0, 2), dtype=int)):
        sample = CodeSample(0, "a", ids)
        for name in FORMATS:
            path = tmp_path / name
            shard_format(name).write(path, [sample], 4)
            assert all(map(same, shard_format(name).read(path), [sample]))


def test_samples_with_other_numbers_of_ids_make_no_batch() -> None:
    samples = [CodeSample(0, "a", np.array([[3, 1]])), CodeSample(1, "b", np.array([3]))]
    with pytest.raises(UserError, match="several numbers of ids"):
        codes_of(samples)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_ids_have_the_smallest_unsigned_type(size: int, dtype: str) -> None:
    assert smallest_unsigned(size) == np.dtype(dtype)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_samples_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    samples = samples_of(random_codes(3))
    for place in ("a", "b"):
        shard_format(name).write(tmp_path / place, samples, 300)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_tar_shard_is_read_with_tar_and_numpy_alone(tmp_path: Path) -> None:
    samples = samples_of(random_codes(2))
    shard_format("webdataset").write(tmp_path / "shard.tar", samples, 300)
    subprocess.run(["tar", "-xf", "shard.tar"], cwd=tmp_path, check=True)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    members = ["cls", "grains.npy", "ids.npy", "key.txt"]
    assert names == [f"00000000{index}.{member}" for index in (0, 1) for member in members] + ["shard.tar"]
    for sample in samples:
        stem = tmp_path / f"{sample.index:09d}"
        assert np.array_equal(np.load(f"{stem}.ids.npy"), sample.ids)
        assert np.array_equal(np.load(f"{stem}.grains.npy"), sample.grains)
        assert int(Path(f"{stem}.cls").read_text()) == sample.label
        assert Path(f"{stem}.key.txt").read_text() == sample.key


def test_webdataset_reads_a_tar_shard(tmp_path: Path) -> None:
    samples = samples_of(random_codes(3))
    shard_format("webdataset").write(tmp_path / "shard.tar", samples, 300)
    found = list(webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in found] == ["000000000", "000000001", "000000002"]
    for sample, read in zip(samples, found, strict=True):
        assert np.array_equal(read["ids.npy"], sample.ids)
        assert (read["cls"], read["key.txt"]) == (sample.label, sample.key)


def test_tar_headers_say_nothing_of_when_and_where(tmp_path: Path) -> None:
    shard_format("webdataset").write(tmp_path / "shard.tar", samples_of(random_codes(1)), 300)
    with tarfile.open(tmp_path / "shard.tar") as archive:
        for header in archive:
            assert (header.mtime, header.uid, header.gid, header.uname, header.gname) == (0, 0, 0, "", "")


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_shards_are_said_to_be(name: str, tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(b"no shard" * 200)
    with pytest.raises(UserError, match="is no shard of codes"):
        list(shard_format(name).read(path))
    with pytest.raises(UserError, match="damaged"):
        parse_tar_sample(torch.arange(200, dtype=torch.uint8).numpy().tobytes() * 5)


@pytest.mark.parametrize("label", [None, 2**63, -(2**70)])
def test_a_batch_has_labels_that_are_numbers_or_none(label: int | None) -> None:
    samples = [
        CodeSample(0, "a.png", np.zeros(1, dtype=np.uint8), None, 3),
        CodeSample(1, "b.png", np.zeros(1, dtype=np.uint8), None, label),
    ]
    with pytest.raises(UserError, match=f"^the codes of 'b.png' have label {label}, where all samples must have"):
        codes_of(samples, labelled=True)
    assert codes_of(samples).labels is None


def test_unknown_formats_are_listed() -> None:
    with pytest.raises(UserError, match=r"webdataset, parquet.*did you mean 'parquet'"):
        shard_format("parket")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_name_that_is_not_utf_8_is_written(name: str, tmp_path: Path) -> None:
    key = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    path = tmp_path / f"shard{shard_format(name).suffix}"
    shard_format(name).write(path, [CodeSample(0, key, np.array([1, 2]))], 4)
    (found,) = shard_format(name).read(path)
    assert found.key == (key if name == "webdataset" else r"caf\xe9.jpg")
