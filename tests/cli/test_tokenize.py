import json
import math
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from vltok.cli.main import main
from vltok.io.bundles import fingerprint, load_tokenizer
from vltok.pictures.folder import Folder
from vltok.pictures.images import ImageBatch
from vltok.pictures.photos import Photos
from vltok.sequences.data import CodeData
from vltok.sequences.manifest import CodeManifest

from .exports import contents, start_process, write_bundle, write_pictures

PICTURES = 41


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, three of which cannot be read: two in a row, and the last."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root, PICTURES)
    for place in (5, 6, PICTURES - 1):
        sorted(root.rglob("*.png"))[place].write_bytes(b"no picture")
    return root


def arguments(bundle: Path, pictures: Path, out: Path, *others: str) -> list[str]:
    common = ["tokenize", "--tokenizer", str(bundle), "--data", "folder", f"--data.root={pictures}", "--out", str(out)]
    return [*common, "--data.size=32", "--data.workers=0", "--data.max_corrupt=0.5", "--shard-size=8", *others]


@pytest.fixture(scope="module")
def exported(bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "codes"
    with pytest.warns(UserWarning, match="skipped the corrupt picture"):
        assert main(arguments(bundle, pictures, out, "--batch-size=3")) == 0
    return out


def read_with_tar_and_numpy(folder: Path, scratch: Path) -> dict[int, dict]:
    """The samples of all shards, by place."""
    samples: dict[int, dict] = {}
    for shard in sorted(folder.glob("*.tar")):
        subprocess.run(["tar", "-xf", str(shard), "-C", str(scratch)], check=True)
    for path in scratch.iterdir():
        place, _, member = path.name.partition(".")
        value = np.load(path) if member.endswith(".npy") else path.read_text()
        samples.setdefault(int(place), {})[member] = value
    return dict(sorted(samples.items()))


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_samples_hold_what_the_tokenizer_gives(bundle: Path, pictures: Path, exported: Path, tmp_path: Path) -> None:
    samples = read_with_tar_and_numpy(exported, tmp_path)
    keys = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    corrupt = [5, 6, PICTURES - 1]
    assert list(samples) == [place for place in range(PICTURES) if place not in corrupt]
    tokenizer = load_tokenizer(bundle)
    batches: list[ImageBatch] = list(
        Folder(str(pictures), size=32, batch_size=1, workers=0, max_corrupt=0.5).export_dataloader()
    )
    for (place, sample), batch in zip(samples.items(), batches, strict=True):
        assert sample["key.txt"] == keys[place] == batch.keys[0]
        assert int(sample["cls"]) == (0 if keys[place].startswith("cat") else 1) == int(batch.labels)
        codes = tokenizer.encode(batch.images)
        assert np.array_equal(sample["ids.npy"], codes.ids)
        assert np.array_equal(sample["grains.npy"], codes.grains[0])
        assert (sample["ids.npy"].dtype, sample["grains.npy"].dtype) == (np.uint16, np.uint8)


def test_the_manifest_names_skipped_pictures_and_the_tokenizer(bundle: Path, pictures: Path, exported: Path) -> None:
    manifest = json.loads((exported / "codes.json").read_text())
    keys = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    skipped = {picture["index"]: picture["key"] for picture in manifest["skipped"]}
    assert skipped == {place: keys[place] for place in (5, 6, PICTURES - 1)}
    assert manifest["settings"]["tokenizer"] == fingerprint(bundle)
    assert Path(exported / manifest["tokenizer_places"][0]).samefile(bundle)
    assert manifest["tokenizer_places"][1] == str(bundle)
    assert manifest["spec"]["regions"] == [4, 4]
    assert manifest["classes"] == ["cat", "person"]
    assert [shard["samples"] for shard in manifest["shards"]] == [6, 8, 8, 8, 8, 0]


def test_the_statistics_are_those_of_the_shards(exported: Path, tmp_path: Path) -> None:
    found = CodeManifest.read(exported).statistics
    samples = list(read_with_tar_and_numpy(exported, tmp_path).values())
    lengths = [len(sample["ids.npy"]) for sample in samples]
    grains = np.stack([sample["grains.npy"] for sample in samples])
    # of each sample, the codes of coarse regions come first, one a region
    coarse = [int((sample["grains.npy"] == 0).sum()) for sample in samples]
    first = np.concatenate([sample["ids.npy"][:count] for sample, count in zip(samples, coarse, strict=True)])
    second = np.concatenate([sample["ids.npy"][count:] for sample, count in zip(samples, coarse, strict=True)])
    assert found["samples"] == len(samples)
    assert found["length"]["mean"] == pytest.approx(np.mean(lengths))
    assert found["length"]["variance"] == pytest.approx(np.var(lengths))
    assert found["length"]["variance"] > 0
    assert found["length"]["histogram"] == {str(length): lengths.count(length) for length in sorted(set(lengths))}
    assert found["ratios"] == pytest.approx({"8": np.mean(grains == 0), "4": np.mean(grains == 1)})
    usage = {"8": len(set(first)) / 300, "4": len(set(second)) / 300, "any": len({*first, *second}) / 300}
    assert found["codebook_usage"] == pytest.approx(usage)
    bits, pixels = sum(lengths) * math.log2(300), len(samples) * 32 * 32
    assert found["bits_per_pixel"]["codes"] == pytest.approx(bits / pixels)
    assert found["bits_per_pixel"]["codes_and_grain_map"] == pytest.approx((bits + grains.size) / pixels)


def test_training_reads_what_was_written(exported: Path, tmp_path: Path) -> None:
    samples = read_with_tar_and_numpy(exported, tmp_path)
    data = CodeData(str(exported), batch_size=5, workers=0)
    seen = [(codes.ids.tolist(), int(codes.labels)) for batch in data.train_dataloader() for codes in batch]
    assert sorted(seen) == sorted((sample["ids.npy"].tolist(), int(sample["cls"])) for sample in samples.values())


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    bundle: Path, pictures: Path, exported: Path, tmp_path: Path
) -> None:
    assert main(arguments(bundle, pictures, tmp_path / "codes", "--batch-size=3", "--data.workers=2")) == 0
    assert contents(tmp_path / "codes") == contents(exported)


def test_killed_at_random_moments_nothing_is_lost(
    bundle: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    def command(name: str) -> list[str]:
        return arguments(bundle, pictures, tmp_path / name, "--shard-size=1", "--batch-size=1")

    undisturbed = start_process(command("undisturbed"))
    undisturbed.join()
    assert undisturbed.exitcode == 0
    out = tmp_path / "killed"
    moments = random.Random(0)
    kept = 0
    for _ in range(6):
        # from before the folder is there to some shards further on, at any step of writing one
        process = start_process(command("killed"))
        target = kept + moments.randrange(4)
        while process.is_alive() and len(list(out.glob("*.tar"))) < target:
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert not (out / "codes.json").exists()
        shards = {path.name: path.read_bytes() for path in out.glob("*.tar")}
        assert all((tmp_path / "undisturbed" / name).read_bytes() == shard for name, shard in shards.items())
        assert len(shards) >= kept
        kept = len(shards)
    assert 0 < kept < PICTURES
    assert main(command("killed")) == 0
    assert contents(out) == contents(tmp_path / "undisturbed")
    # a shard that was in place when its record was not yet is written again
    done = int(re.findall(r"going on from (\d+) pictures that are done", capfd.readouterr().err)[-1])
    assert kept - 1 <= done <= kept


@pytest.mark.parametrize(("rank", "world_size"), [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_two_processes_write_what_one_writes(
    rank: str, world_size: str, bundle: Path, pictures: Path, exported: Path, tmp_path: Path
) -> None:
    command = arguments(bundle, pictures, tmp_path / "codes", "--batch-size=3")
    launcher = {world_size: "2", "SLURM_STEP_ID" if rank == "SLURM_PROCID" else "TORCHELASTIC_RUN_ID": "0"}
    processes = [start_process(command, **{rank: str(number)}, **launcher) for number in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert contents(tmp_path / "codes") == contents(exported)


def test_what_is_left_of_another_job_leaves_nothing_out(
    bundle: Path, pictures: Path, exported: Path, tmp_path: Path
) -> None:
    leaked = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_PROCID": "x"}
    process = start_process(arguments(bundle, pictures, tmp_path / "codes", "--batch-size=3"), **leaked)
    process.join()
    assert process.exitcode == 0
    assert contents(tmp_path / "codes") == contents(exported)


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_the_same_command_again_has_nothing_left_to_do(
    bundle: Path, pictures: Path, exported: Path, capsys: pytest.CaptureFixture
) -> None:
    before = contents(exported)
    assert main(arguments(bundle, pictures, exported, "--batch-size=3")) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert contents(exported) == before


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_parquet(bundle: Path, pictures: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    assert main(arguments(bundle, pictures, out, "--batch-size=3", "--format", "parquet")) == 0
    table = [row for path in sorted(out.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]
    (tmp_path / "scratch").mkdir()
    samples = read_with_tar_and_numpy(exported, tmp_path / "scratch")
    for row, (place, sample) in zip(table, samples.items(), strict=True):
        assert (row["index"], row["key"], row["label"]) == (place, sample["key.txt"], int(sample["cls"]))
        assert row["ids"] == sample["ids.npy"].tolist()
        assert row["grains"] == sample["grains.npy"].tolist()


def test_held_out_crops_of_the_embedded_photographs_from_a_recipe(bundle: Path, tmp_path: Path) -> None:
    data = {"class_path": "photos", "init_args": {"size": 32, "val_crops": 10, "batch_size": 4}}
    recipe = {"tokenizer": str(bundle), "data": data, "split": "val", "out": str(tmp_path / "codes")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["tokenize", "--config", str(tmp_path / "recipe.yaml")]) == 0
    manifest = CodeManifest.read(tmp_path / "codes")
    samples = [s for shard in manifest.shards for s in manifest.read_samples(tmp_path / "codes", shard)]
    crops = list(Photos(size=32, val_crops=10, batch_size=4).val_dataloader())
    assert [sample.key for sample in samples] == [key for batch in crops for key in batch.keys]
    codes = [load_tokenizer(bundle).encode(batch.images) for batch in crops]
    assert [sample.ids.tolist() for sample in samples] == [each.ids.tolist() for batch in codes for each in batch]
    assert manifest.classes is None and not manifest.labelled


@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_codes_of_another_tokenizer_stay(
    bundle: Path, pictures: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = contents(exported)
    write_bundle(tmp_path / "other", seed=1)
    assert main(arguments(tmp_path / "other", pictures, exported, "--batch-size=3")) == 1
    assert "holds the codes of another tokenizer" in capsys.readouterr().err
    assert contents(exported) == before


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--shard-size=0"], "--shard-size must be at least 1, not 0"),
        (["--batch-size=-1"], "--batch-size must be at least 1, not -1"),
        (["--device=cuda:99"], "--device 'cuda:99' is not on this machine"),
        (["--data.size=36"], "36"),
        (["--data.max_corrupt=0"], "cannot be read, which is past data.max_corrupt 0"),
        (["--tokenizer=nowhere"], "there is no bundle './nowhere'"),
        (["--format=pickle"], "pickle"),
        (["--data=codes"], "ImageData"),
    ],
)
@pytest.mark.filterwarnings("ignore:skipped the corrupt picture")
def test_wrong_arguments(
    others: list[str], message: str, bundle: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments(bundle, pictures, tmp_path / "codes", *others)) in (1, 2)
    printed = capsys.readouterr().err.strip().splitlines()
    assert message in printed[-1] and "unexpected" not in printed[-1]
    assert not (tmp_path / "codes" / "codes.json").exists()


def test_a_folder_that_cannot_be_written(
    bundle: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert main(arguments(bundle, pictures, tmp_path / "file" / "codes")) == 1
    assert "which is a file: name a folder" in capsys.readouterr().err


def test_python_m_vltok_knows_the_verbs() -> None:
    printed = subprocess.run([sys.executable, "-m", "vltok", "--help"], capture_output=True, text=True, check=True)
    assert "\n  tokenize" in printed.stdout and "\n  detokenize" in printed.stdout
