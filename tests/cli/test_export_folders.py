"""What `tokenize` and `sample` do with the folder that they are to write."""

from pathlib import Path

import pytest

from vltok.cli.main import main
from vltok.io.bundles import fingerprint
from vltok.sequences.manifest import CodeManifest

from .exports import PRIOR, contents, write_bundle, write_pictures, write_prior


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_bundle(folder / "tokenizer")
    write_prior(folder / "prior", PRIOR, fingerprint(folder / "tokenizer"))
    write_pictures(folder / "pictures", 6)
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def sample(out: Path, *others: str) -> int:
    return main(["sample", "--prior", "prior", "--device=cpu", "--batch-size=2", "--out", str(out), *others])


def tokenize(out: Path, *others: str) -> int:
    data = ["--data=folder", "--data.root=pictures", "--data.size=16", "--data.workers=0", "--batch-size=2"]
    return main(["tokenize", "--tokenizer", "tokenizer", *data, "--out", str(out), "--device=cpu", *others])


def test_a_refused_sample_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "samples"
    assert sample(out, "--count=2", "--codes=3") == 1
    assert "no image of 4 regions has exactly 3 codes" in capsys.readouterr().err
    assert not out.exists()
    assert sample(out, "--count=2", "--codes=10") == 0


def test_a_refused_tokenize_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "codes"
    assert tokenize(out, "--data.size=12") == 1
    assert "12" in capsys.readouterr().err
    assert not out.exists()
    assert tokenize(out) == 0


def test_samples_grow(tmp_path: Path) -> None:
    assert sample(tmp_path / "grown", "--count=2", "--shard-size=3") == 0
    before = contents(tmp_path / "grown" / "pictures")
    assert sample(tmp_path / "grown", "--count=4", "--shard-size=3") == 0
    after = contents(tmp_path / "grown" / "pictures")
    assert {name: after[name] for name in before} == before
    # shards of two batches: the batches of both are the same
    assert sample(tmp_path / "by two", "--count=2", "--shard-size=4") == 0
    assert sample(tmp_path / "by two", "--count=4", "--shard-size=4") == 0
    assert sample(tmp_path / "whole", "--count=4", "--shard-size=4") == 0
    assert contents(tmp_path / "by two") == contents(tmp_path / "whole")


def test_the_option_that_differs_is_named_with_both_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert sample(tmp_path / "samples", "--count=2") == 0
    assert tokenize(tmp_path / "codes") == 0
    before = contents(tmp_path)
    for write, out, others, message in (
        (sample, "samples", ["--count=1"], "--count 2, not 1:"),
        (sample, "samples", ["--count=2", "--seed=7"], "--seed 0, not 7:"),
        (sample, "samples", ["--count=3", "--temperature=0.5"], "--count 2, not 3, --temperature 1.0, not 0.5:"),
        (tokenize, "codes", ["--data.size=24"], "--data.size 16, not 24:"),
        (tokenize, "codes", ["--split=val"], "--split all, not val:"),
        (tokenize, "codes", ["--precision=bfloat16"], "--precision float32, not bfloat16:"),
    ):
        assert write(tmp_path / out, *others) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vltok:")]
        assert f"holds an export with {message}" in line and "--overwrite" in line
    assert contents(tmp_path) == before


def test_samples_are_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "samples"
    assert sample(out, "--count=5") == 0
    assert sample(out, "--count=2", "--seed=7", "--coding-maps=false", "--overwrite") == 0
    assert sample(tmp_path / "new", "--count=2", "--seed=7", "--coding-maps=false") == 0
    assert contents(out) == contents(tmp_path / "new")
    assert not (out / "coding_maps").exists()


def test_codes_are_overwritten_and_other_files_are_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tokenize(tmp_path / "codes", "--shard-size=1") == 0
    assert tokenize(tmp_path / "codes", "--data.size=24", "--overwrite") == 0
    assert tokenize(tmp_path / "new", "--data.size=24") == 0
    assert contents(tmp_path / "codes") == contents(tmp_path / "new")
    (tmp_path / "codes" / "thesis.tex").write_text("years of work")
    assert tokenize(tmp_path / "codes", "--overwrite") == 1
    assert "holds other files (such as thesis.tex)" in capsys.readouterr().err
    assert sample(tmp_path / "codes", "--count=1") == 1
    assert "holds other files" in capsys.readouterr().err


def test_the_manifest_tells_what_was_asked_for_and_in_which_arithmetic(tmp_path: Path) -> None:
    assert tokenize(tmp_path / "codes") == 0
    settings = CodeManifest.read(tmp_path / "codes").settings
    assert settings.options["--data"] == "Folder" and settings.options["--data.root"] == "pictures"
    assert "--data.workers" not in settings.options
    assert (settings.precision, settings.tf32) == ("float32", False)


@pytest.mark.parametrize("write", [sample, tokenize])
def test_a_folder_that_cannot_be_one_is_said_at_once(write, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert write(tmp_path / "file" / "out") == 1
    assert "lies below" in capsys.readouterr().err


def test_parts_leave_what_one_command_leaves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tokenize(tmp_path / "one" / "codes", "--shard-size=2") == 0
    assert sample(tmp_path / "one" / "samples", "--count=4", "--shard-size=2") == 0
    capsys.readouterr()
    for part in ("2/2", "1/2"):
        assert tokenize(tmp_path / "two" / "codes", "--shard-size=2", "--part", part) == 0
        assert sample(tmp_path / "two" / "samples", "--count=4", "--shard-size=2", "--part", part) == 0
        printed = capsys.readouterr().out
        if part == "2/2":
            assert "part 2 of 2 is done; not yet: 1 part (1); the last one to end writes the manifest\n" in printed
            assert "part 2 of 2 is done; not yet: 1 part (1); the last one to end writes the grid\n" in printed
            assert main(["merge", str(tmp_path / "two" / "codes")]) == 1
            said = capsys.readouterr().err
            assert "codes is not whole: 1 part of 2 must be given again, or still run (--array=1)" in said
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert tokenize(tmp_path / "three", "--part=4/3") == 1
    assert "--part 4/3: parts count from 1 to 3" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()
