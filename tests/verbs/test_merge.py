"""Exports joined, and one that was written in parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.exports import contents
from tests.sequences.code_exports import (
    SPEC,
    export_codes,
    export_samples,
    mixed_samples,
    random_codes,
    settings,
    write_shards,
)
from vltok.errors import UserError
from vltok.launchers import Share
from vltok.sequences.export import CodeExport
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.stored import stored_sequences
from vltok.verbs.merge import merge

from .parts import check_killed_parts


def test_a_third_of_the_parts_is_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    check_killed_parts(tmp_path, 500, 10, 16)


def test_exports_are_joined_as_one_export_of_all_would_be(tmp_path: Path) -> None:
    codes = random_codes(30)
    export_codes(tmp_path / "all", codes, shard_size=5, classes=30)
    for name, some, size in (("a", range(12), 5), ("b", range(12, 19), 3), ("c", range(19, 30), 20)):
        export_codes(tmp_path / name, codes[list(some)], size, classes=30, input=name.encode().hex().rjust(64, "0"))
    told: list[int] = []
    found = merge(
        [tmp_path / name for name in "abc"], tmp_path / "joined", progress=lambda done, total: told.append(done)
    )
    assert told == [0, 5, 10, 15, 20, 25, 30]
    whole, joined = contents(tmp_path / "all"), contents(tmp_path / "joined")
    assert whole.keys() == joined.keys()
    wanted = CodeManifest.read(tmp_path / "all")
    assert found.manifest.statistics == wanted.statistics and found.manifest.classes == wanted.classes


def test_exports_with_embeddings_are_joined_where_these_have_one_size(tmp_path: Path) -> None:
    for name, size in (("a", 3), ("b", 3), ("c", 4), ("d", None)):
        codes = replace(random_codes(6), embeddings=None if size is None else torch.rand(6, size))
        export_codes(tmp_path / name, codes, classes=6, input=name.encode().hex().rjust(64, "0"))
    assert merge([tmp_path / name for name in "ab"], tmp_path / "joined").manifest.embedding_size == 3
    joined, first, second = (stored_sequences(tmp_path / name)[np.arange(6)] for name in ("joined", "a", "b"))
    assert joined.embeddings.equal(first.embeddings)
    assert stored_sequences(tmp_path / "joined")[np.arange(6, 12)].embeddings.equal(second.embeddings)
    for name, size in (("c", "4"), ("d", "no")):
        with pytest.raises(UserError, match=f"holds codes with embeddings of {size} numbers, '.*a' of 3: they cannot"):
            merge([tmp_path / "a", tmp_path / name], tmp_path / "other")


def test_exports_of_other_sizes_are_joined(tmp_path: Path) -> None:
    for name, grids in (("a", [(2, 3)]), ("b", [(3, 2), (2, 2)])):
        export_samples(tmp_path / name, mixed_samples(6, grids), input=name.encode().hex().rjust(64, "0"))
    found = merge([tmp_path / name for name in "ab"], tmp_path / "joined")
    assert found.manifest.spec.regions is None and found.manifest.statistics["pixels"] == 256 * (6 * 6 + 3 * 6 + 3 * 4)
    sequences = stored_sequences(tmp_path / "joined")
    assert sequences.grids.tolist() == [[2, 3]] * 6 + [[3, 2], [2, 2]] * 3


def test_one_folder_is_finished_or_says_what_is_missing(tmp_path: Path) -> None:
    codes = random_codes(12)
    export_codes(tmp_path / "one", codes, classes=12)
    for part, shards in ((3, None), (1, [0])):
        share = Share.find({}, f"{part}/3")
        classes = tuple(f"class {index}" for index in range(12))
        export = CodeExport(tmp_path / "parts", SPEC, settings(12, 5), classes, share)
        write_shards(export, codes, shards)
        if part == 1:
            write_shards(CodeExport(tmp_path / "parts", SPEC, settings(12, 5), classes, Share.find({}, "2/3")), codes)
        else:
            with pytest.raises(UserError, match=r"parts is not whole: 2 parts of 3 .*\(--array=1-2\)"):
                merge([tmp_path / "parts"])
    # all shards are there, but whoever wrote the last one was killed before the manifest
    merge([tmp_path / "parts"])
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")
    assert merge([tmp_path / "parts"]).manifest == CodeManifest.read(tmp_path / "one")


@pytest.mark.parametrize(
    ("folders", "out", "message"),
    [
        (["a"], "c", "--out is for exports that are joined"),
        (["a", "b"], None, "say where the joined export goes: --out FOLDER"),
        (["a", "b"], "a", "is or lies in '.*a', which is joined"),
        (["a", "b"], "b/c", "is or lies in '.*b', which is joined"),
        (["a", "nothing"], "c", "nothing holds no finished codes"),
    ],
)
def test_wrong_arguments_are_user_errors(folders: list[str], out: str | None, message: str, tmp_path: Path) -> None:
    for name in "ab":
        export_codes(tmp_path / name, random_codes(4), input=name.encode().hex().rjust(64, "0"))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        merge([tmp_path / name for name in folders], None if out is None else tmp_path / out)
    assert contents(tmp_path) == before
