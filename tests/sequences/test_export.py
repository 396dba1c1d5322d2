import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vltok.errors import UserError
from vltok.launchers import ALONE, Share
from vltok.loading.skipping import SkippedPicture
from vltok.sequences.export import CodeExport
from vltok.sequences.export_folder import ExportFolder
from vltok.sequences.manifest import CodeManifest
from vltok.sequences.shards import TarShards, shard_format
from vltok.sequences.statistics import CodeCounts

from .code_exports import SPEC, export_codes, random_codes, samples_of, settings, write_shards


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(index: int) -> SkippedPicture:
    return SkippedPicture(index, f"picture {index}", "broken")


def open_export(folder: Path, pictures: int = 12, **changes) -> CodeExport:
    share = changes.pop("share", ALONE)
    classes = tuple(f"class {index}" for index in range(pictures))
    return CodeExport(folder, SPEC, settings(pictures, 5, **changes), classes, share)


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
def test_a_whole_export(name: str, tmp_path: Path) -> None:
    codes = random_codes(12)
    export_codes(tmp_path, codes, format=name)
    manifest = CodeManifest.read(tmp_path)
    suffix = shard_format(name).suffix
    assert [shard.name for shard in manifest.shards] == [f"codes-00000{index}{suffix}" for index in range(3)]
    assert [shard.samples for shard in manifest.shards] == [5, 5, 2]
    assert manifest.spec.regions == (2, 3)
    samples = [sample for shard in manifest.shards for sample in manifest.read_samples(tmp_path, shard)]
    assert [sample.index for sample in samples] == list(range(12))
    for sample, written in zip(samples, samples_of(codes), strict=True):
        assert sample.key == written.key
        assert np.array_equal(sample.ids, written.ids)
    index = {"codes.index.npy"} if name == "webdataset" else set()
    assert set(contents(tmp_path)) == {shard.name for shard in manifest.shards} | {"codes.json"} | index


def test_the_index_tells_where_samples_stand_and_how_long_they_are(tmp_path: Path) -> None:
    codes = random_codes(12)
    manifest = export_codes(tmp_path, codes)
    index = manifest.read_index(tmp_path)
    assert index[:, 2].tolist() == codes.lengths.tolist()
    (tmp_path / "codes.index.npy").write_bytes(b"other")
    with pytest.raises(UserError, match="missing or damaged"):
        manifest.read_index(tmp_path)


def test_an_export_goes_on_where_another_stopped(tmp_path: Path) -> None:
    codes = random_codes(12)
    export_codes(tmp_path / "undisturbed", codes)
    stopped = open_export(tmp_path / "stopped")
    write_shards(stopped, codes, [0, 2])
    assert not stopped.finished and not (tmp_path / "stopped" / "codes.json").exists()
    assert stopped.finish() is None
    stopped.close()
    # what a kill between two steps may leave: a shard without its record, and a half-written one
    (tmp_path / "stopped" / "codes-000001.tar").write_bytes(b"a shard that nothing vouches for")
    (tmp_path / "stopped" / ".unfinished" / "codes-000001.tar").write_bytes(b"half")
    resumed = open_export(tmp_path / "stopped")
    assert resumed.pending() == [1]
    write_shards(resumed, codes)
    assert resumed.finish() is not None
    assert contents(tmp_path / "stopped") == contents(tmp_path / "undisturbed")


def test_a_kill_after_the_manifest_leaves_only_a_clean_up(tmp_path: Path) -> None:
    codes = random_codes(12)
    export_codes(tmp_path, codes)
    before = contents(tmp_path)
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "run.json").write_text("{}")
    again = open_export(tmp_path)
    assert again.finished and again.pending() == []
    again.finish()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_several_processes_write_what_one_writes(world_size: int, tmp_path: Path) -> None:
    codes = random_codes(12)
    export_codes(tmp_path / "one", codes)
    exports = [open_export(tmp_path / "several", share=Share(rank, world_size)) for rank in range(world_size)]
    results = []
    for export in reversed(exports):
        write_shards(export, codes)
        results.append(export.finish())
    # with more processes than shards, the first ones of the reversed order have nothing to do
    assert results[-1] is not None and all(result is None for result in results[:-1])
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


def test_parts_write_what_one_writes_however_many_processes_each_has(tmp_path: Path) -> None:
    codes = random_codes(37)
    export_codes(tmp_path / "one", codes)
    two = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}
    jobs = [({}, "2/3"), ({**two, "RANK": "0"}, "1/3"), ({**two, "RANK": "1"}, "1/3"), ({}, "3/3")]
    shares = [Share.find(environment, part) for environment, part in jobs]
    assert [share.name for share in shares] == [
        "part 2 of 3",
        "part 1 of 3, process 0 of 2",
        "part 1 of 3, process 1 of 2",
        "part 3 of 3",
    ]
    exports = [open_export(tmp_path / "parts", 37, share=share) for share in shares]
    missing = []
    for export in exports:
        write_shards(export, codes)
        missing.append(export.missing_parts())
    assert missing == [(1, 3), (1, 3), (3,), ()]
    assert exports[0].finish() is not None
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


def test_another_process_may_finish_and_clean_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(12)
    exports = [open_export(tmp_path / "codes", share=Share(rank, 2)) for rank in range(2)]
    for export in exports:
        write_shards(export, codes)
    whole = exports[0].finish()
    looks = iter([False])  # it looked before the other one was through, and locks while that one cleans up
    finished = ExportFolder.finished.fget
    monkeypatch.setattr(ExportFolder, "finished", property(lambda folder: next(looks, finished(folder))))

    def gone(path: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr("vltok.files.filelock.FileLock", gone)
    assert exports[1].finish() == whole


def test_two_processes_of_one_rank_do_not_write_one_folder(tmp_path: Path) -> None:
    first = open_export(tmp_path)
    with pytest.raises(UserError, match="another process"):
        open_export(tmp_path)
    first.close()
    open_export(tmp_path).close()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "2" * 64}, "another tokenizer"),
        ({"shard_size": 4}, "--shard-size 5, not 4"),
        ({"format": "parquet"}, "--format webdataset, not parquet"),
        ({"input": "3" * 64}, "other pictures, or of other crops"),
    ],
)
def test_what_was_there_stays(finished: bool, changes: dict, message: str, tmp_path: Path) -> None:
    codes = random_codes(12)
    export = open_export(tmp_path)
    write_shards(export, codes, None if finished else [0])
    export.finish()
    export.close()
    before = contents(tmp_path)
    with pytest.raises(UserError, match=message):
        CodeExport(tmp_path, SPEC, settings(12, **{"shard_size": 5, **changes}), [f"class {i}" for i in range(12)])
    assert contents(tmp_path) == before


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        open_export(tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot write to --out .*file/codes.*[Nn]ot a directory"):
        open_export(tmp_path / "file" / "codes")


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(12)
    export_codes(tmp_path / "undisturbed", codes)
    export = open_export(tmp_path / "full")
    write_shards(export, codes, [0])
    before = {name: content for name, content in contents(tmp_path / "full").items()}

    def no_space(self, path: Path, *_) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(TarShards, "write", no_space)
        with pytest.raises(UserError, match=r"disk of .* is full: finished shards stay"):
            write_shards(export, codes, [1])
    assert contents(tmp_path / "full") == before
    write_shards(export, codes)
    export.finish()
    assert contents(tmp_path / "full") == contents(tmp_path / "undisturbed")


def test_skipped_pictures_are_counted_by_key_and_leave_gaps(tmp_path: Path) -> None:
    codes = random_codes(12)
    export = open_export(tmp_path)
    for shard in export.pending():
        kept = [index for index in export.pictures(shard) if index not in (3, 10, 11)]
        samples = [sample for sample in samples_of(codes) if sample.index in kept]
        skipped = [broken(index) for index in export.pictures(shard) if index not in kept]
        export.write(shard, samples, CodeCounts.of(codes[kept], SPEC, 1536 * len(kept)), skipped)
    manifest = export.finish()
    assert manifest.skipped == (broken(3), broken(10), broken(11))
    assert CodeManifest.read(tmp_path) == manifest
    found = [sample for shard in manifest.shards for sample in manifest.read_samples(tmp_path, shard)]
    assert [(sample.index, sample.label) for sample in found] == [(i, i) for i in range(12) if i not in (3, 10, 11)]
    assert manifest.statistics["samples"] == 9


def test_embeddings_of_one_size_are_told_and_others_refused(tmp_path: Path) -> None:
    codes = [dataclasses.replace(random_codes(5, seed=size), embeddings=torch.rand(5, size)) for size in (3, 4)]
    assert export_codes(tmp_path / "good", codes[0]).embedding_size == 3
    said = {
        "alone": "'class/picture 5.jpg' has 4 numbers, but that of 'class/picture 0.jpg' 3",
        "parts": "of 3 and of 4",
    }
    for name, shares in (("alone", [ALONE] * 2), ("parts", [Share.find({}, f"{part}/2") for part in (1, 2)])):
        with pytest.raises(UserError, match=said[name]):
            for shard, share in enumerate(shares):
                export = CodeExport(tmp_path / name, SPEC, settings(10, 5), share=share)
                samples = [samples_of(each, 5 * place) for place, each in enumerate(codes)]
                for number in range(2) if share is ALONE else [shard]:
                    export.write(number, samples[number], CodeCounts.of(codes[number], SPEC, 0))
                export.finish()


def test_an_export_without_any_readable_picture_says_so(tmp_path: Path) -> None:
    export = open_export(tmp_path)
    for shard in export.pending():
        export.write(shard, [], CodeCounts.none(SPEC), [broken(index) for index in export.pictures(shard)])
    with pytest.raises(UserError, match="none of the 12 pictures"):
        export.finish()


def test_pictures_of_several_sizes_have_no_common_grid(tmp_path: Path) -> None:
    export = open_export(tmp_path)
    for shard, grid in zip(export.pending(), [(2, 3), (3, 2), (2, 3)], strict=True):
        codes = random_codes(len(export.pictures(shard)), grid=grid)
        counts = CodeCounts.of(codes, SPEC, 1536 * len(codes))
        export.write(shard, samples_of(codes, export.pictures(shard).start), counts)
    assert export.finish().spec.regions is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "damaged"),
        (lambda text: text.replace('"version": 2', '"version": 9'), "version 9; this vltok reads versions up to 2"),
        (lambda text: json.dumps({"version": 1}), "damaged: spec is missing"),
    ],
)
def test_a_damaged_manifest_is_said_to_be(change, message: str, tmp_path: Path) -> None:
    export_codes(tmp_path, random_codes(12))
    path = tmp_path / "codes.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        CodeManifest.read(tmp_path)


def test_missing_and_short_shards_are_named(tmp_path: Path) -> None:
    manifest = export_codes(tmp_path, random_codes(12))
    manifest.check_shards(tmp_path)
    path = tmp_path / "codes-000001.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"codes-000001\.tar has"):
        manifest.check_shards(tmp_path)
    with pytest.raises(UserError, match="missing or damaged"):
        list(manifest.read_samples(tmp_path, manifest.shards[1]))


def test_a_folder_without_a_manifest_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no codes\.json"):
        CodeManifest.read(tmp_path)
