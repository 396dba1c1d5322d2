"""How an export claims its folder, grows, and takes another's place."""

import errno
import json
import shutil
from pathlib import Path

import filelock
import pytest

from vltok.errors import UserError
from vltok.launchers import Share
from vltok.sequences.export import CodeExport
from vltok.sequences.export_folder import ExportFolder
from vltok.sequences.export_records import ShardRecord
from vltok.sequences.manifest import CodeManifest

from .code_exports import SPEC, random_codes, settings, write_shards


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(
    folder: Path, pictures: int = 12, shard_size: int = 5, rank: int = 0, world_size: int = 1, parts: int = 1, **others
):
    keywords = {key: others.pop(key) for key in ("overwrite", "grows", "pictures_of") if key in others}
    kinds = keywords.pop("pictures_of", {})
    run = settings(pictures, shard_size, options={"--count": pictures, "--seed": 0}, **others)
    return CodeExport(folder, SPEC, run, None, Share(rank, world_size, parts=parts), pictures=kinds, **keywords)


def written(folder: Path, pictures: int = 12, shards: list[int] | None = None, **others) -> None:
    """An export, of some shards alone where they are named."""
    export = opened(folder, pictures, **others)
    try:
        write_shards(export, random_codes(12), shards)
        export.finish()
    finally:
        export.close()


def test_what_was_refused_before_anything_was_finished_leaves_nothing(tmp_path: Path) -> None:
    folder, kinds = tmp_path / "a" / "codes", {"pictures": tmp_path / "a" / "pictures"}
    export = opened(folder, pictures_of=kinds)
    (kinds["pictures"]).mkdir()
    (kinds["pictures"] / "000000.png").write_bytes(b"of a shard that was not finished")
    export.close()
    assert not any(tmp_path.iterdir())


def test_a_shard_that_could_not_be_noted_any_more_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: ShardRecord, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardRecord, "write", full)
    with pytest.raises(UserError, match="is full"):
        written(tmp_path / "codes", shards=[0])
    assert not any(tmp_path.iterdir())


def test_a_killed_process_that_has_finished_nothing_keeps_nobody_out(tmp_path: Path) -> None:
    opened(tmp_path / "codes").close()
    export = opened(tmp_path / "codes")
    shutil.copytree(tmp_path / "codes" / ".unfinished", tmp_path / "left")
    export.close()
    shutil.copytree(tmp_path / "left", tmp_path / "codes" / ".unfinished")
    written(tmp_path / "codes", batch_size=2)
    assert CodeManifest.read(tmp_path / "codes").settings.batch_size == 2


def test_while_another_process_writes_there_nobody_takes_over(tmp_path: Path) -> None:
    first = opened(tmp_path / "codes", rank=1, world_size=2)
    for changes in ({"batch_size": 2}, {"batch_size": 2, "overwrite": True}):
        with pytest.raises(UserError, match=r"another process|--batch-size 4, not 2"):
            opened(tmp_path / "codes", **changes)
    write_shards(first, random_codes(12))
    first.close()
    assert (tmp_path / "codes" / "codes-000001.tar").is_file()


def test_one_number_of_parts_at_a_time(tmp_path: Path) -> None:
    first = opened(tmp_path, rank=1, world_size=3, parts=3)
    write_shards(first, random_codes(12))
    with pytest.raises(UserError, match=r"is being written in 3 parts, not 2: .*--part …/3"):
        opened(tmp_path, rank=1, world_size=2, parts=2)
    with pytest.raises(UserError, match=r"another process \(part 2 of 3\) is writing to"):
        opened(tmp_path, rank=1, world_size=3, parts=3)
    assert first.missing_parts() == (1, 3)
    first.close()
    # the shards that are left may be shared out otherwise
    again = opened(tmp_path, rank=1, world_size=2, parts=2)
    assert again.pending() == [] and again.missing_parts() == (1,)


def test_who_holds_a_file_system_without_locks_is_told_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = opened(tmp_path)

    def held(path: Path, *_) -> None:
        raise filelock.Timeout(str(path.with_suffix(".held")))

    export.close()
    opened(tmp_path)
    monkeypatch.setattr("vltok.sequences.export_folder.acquire", held)
    with pytest.raises(
        UserError, match=r"another process \(rank 0\) is writing to .*; if none is, remove .*rank-0\.held"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("counts", [(2, 4), (5, 12), (7, 11)])
def test_a_finished_export_grows(counts: tuple[int, int], tmp_path: Path) -> None:
    written(tmp_path / "grown", counts[0], input="a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "grown").glob("*.tar")}
    full = counts[0] // 5
    export = opened(tmp_path / "grown", counts[1], grows=True, input="a")
    codes = random_codes(12)
    for shard in export.pending():
        assert shard >= full
        kept, _ = export.kept(shard)
        assert len(kept) == (counts[0] % 5 if shard == full else 0)
    # until it is whole, the smaller one is
    assert CodeManifest.read(tmp_path / "grown").settings.pictures == counts[0]
    write_shards(export, codes)
    CodeManifest.read(tmp_path / "grown").check_shards(tmp_path / "grown")
    export.finish()
    written(tmp_path / "whole", counts[1], input="a")
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    for shard in range(full):
        assert before[f"codes-{shard:06d}.tar"] == (tmp_path / "grown" / f"codes-{shard:06d}.tar").read_bytes()


def test_it_grows_by_number_alone_and_does_not_shrink(tmp_path: Path) -> None:
    written(tmp_path, 7, input="a")
    before = contents(tmp_path)
    for pictures, changes, message in (
        (4, {"input": "a", "grows": True}, "--count 7, not 4"),
        (9, {"input": "a"}, "--count 7, not 9"),
        (9, {"input": "b", "grows": True}, "--count 7, not 9"),
        (9, {"input": "a", "grows": True, "precision": "bfloat16"}, "--precision float32, not bfloat16"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path, pictures, **changes)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_export_takes_the_place_of_another(ranks: int, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    kinds = {"pictures": tmp_path / "pictures"}
    kinds["pictures"].mkdir()
    (kinds["pictures"] / "000000.png").write_bytes(b"old")
    (tmp_path / "old.png").write_bytes(b"old")
    shutil.move(kinds["pictures"], tmp_path / "kept")
    written(out, pictures_of=kinds)
    shutil.move(tmp_path / "kept", kinds["pictures"])
    before = contents(out)
    new = {"shard_size": 4, "batch_size": 2, "overwrite": True, "pictures_of": kinds, "world_size": ranks}
    exports = [opened(out, 6, rank=rank, **new) for rank in range(ranks)]
    codes = random_codes(6, seed=1)
    for export in exports:
        (export.folder_of("pictures") / f"{export.pending()[0]:06d}.png").write_bytes(b"new")
        write_shards(export, codes)
        # until all of it is whole, the old export is there, whole
        assert {name: content for name, content in contents(out).items() if name[0] != "."} == before
        assert (kinds["pictures"] / "000000.png").read_bytes() == b"old"
        export.finish()
    undisturbed = opened(tmp_path / "new", 6, shard_size=4, batch_size=2)
    write_shards(undisturbed, codes)
    undisturbed.finish()
    assert contents(out) == contents(tmp_path / "new")
    assert {path.read_bytes() for path in kinds["pictures"].iterdir()} == {b"new"}


@pytest.mark.parametrize("moment", range(7))
def test_a_kill_while_it_takes_the_place_loses_nothing(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "codes"
    written(out)
    new = {"shard_size": 2, "overwrite": True, "input": "2" * 64}
    export = opened(out, 4, **new)
    write_shards(export, random_codes(4, seed=1))
    steps = []

    def step(method):
        def call(self, *arguments, **keywords):
            if self.parent == out or self.parent.parent == out:
                if len(steps) == moment:
                    raise KeyboardInterrupt  # stands for a kill: what comes later does not happen
                steps.append(self.name)
            return method(self, *arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, step(getattr(Path, name)))
        patch.setattr(ExportFolder, "leave", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            export.finish()
        export._place._release()
    if (out / "codes.json").is_file():  # nothing has begun yet
        CodeManifest.read(out).check_shards(out)
    again = opened(out, 4, **{**new, "overwrite": moment % 2 == 0 or (out / "codes.json").is_file()})
    assert again.pending() == []
    again.finish()
    undisturbed = opened(tmp_path / "new", 4, shard_size=2, input="2" * 64)
    write_shards(undisturbed, random_codes(4, seed=1))
    undisturbed.finish()
    assert contents(out) == contents(tmp_path / "new")


def test_what_is_not_an_exports_is_never_replaced(tmp_path: Path) -> None:
    written(tmp_path / "codes")
    (tmp_path / "codes" / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"holds other files \(such as thesis\.tex\)"):
        opened(tmp_path / "codes", 4, overwrite=True)
    assert contents(tmp_path) == before
    (tmp_path / "codes" / "thesis.tex").unlink()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_bytes(b"photograph")
    with pytest.raises(UserError, match=r"holds other files \(such as holiday\.png\)"):
        opened(tmp_path / "codes", 4, overwrite=True, pictures_of={"pictures": tmp_path / "pictures"})


def test_an_overwriting_that_fails_at_once_leaves_the_old_export(tmp_path: Path) -> None:
    written(tmp_path)
    before = contents(tmp_path)
    opened(tmp_path, 4, overwrite=True).close()
    assert contents(tmp_path) == before


def test_a_damaged_export_is_overwritten_with_the_same(tmp_path: Path) -> None:
    written(tmp_path / "codes")
    before = contents(tmp_path / "codes")
    (tmp_path / "codes" / "codes-000001.tar").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"codes-000001\.tar has 3 bytes"):
        opened(tmp_path / "codes")
    written(tmp_path / "codes", overwrite=True)
    assert contents(tmp_path / "codes") == before


def test_an_export_of_the_first_version_goes_on_and_counts_as_finished(tmp_path: Path) -> None:
    """It had no options, did not say whether TF32 was allowed, and its run.json had no version."""
    written(tmp_path / "codes", shards=[0], input="a")
    work = tmp_path / "codes" / ".unfinished"

    def as_before(path: Path) -> None:
        values = json.loads(path.read_text())
        values["settings"] = {k: v for k, v in values["settings"].items() if k not in ("options", "tf32")}
        if path.name == "run.json":
            del values["version"]
        else:
            values["version"] = 1
        path.write_text(json.dumps(values))

    as_before(work / "run.json")
    with pytest.raises(UserError, match=r"other pictures, or of other crops of them"):
        opened(tmp_path / "codes", input="b")
    written(tmp_path / "codes", input="a")
    as_before(tmp_path / "codes" / "codes.json")
    assert CodeManifest.read(tmp_path / "codes").settings.tf32 is None
    assert opened(tmp_path / "codes", input="a").finished
