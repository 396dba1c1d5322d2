"""`vltok.evaluate` and `vltok.compare` as a notebook calls them; `vltok evaluate` tests what they measure."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from torch import Tensor

import vltok
from tests.cli.exports import PRIOR, write_bundle, write_prior
from vltok.compression.tables import CodeTables
from vltok.errors import UserError
from vltok.evaluation.comparison import Comparison
from vltok.evaluation.evaluations import Evaluation
from vltok.evaluation.values import Value
from vltok.io.bundles import fingerprint
from vltok.measures.pixels import to_bytes
from vltok.pictures.folder import Folder
from vltok.pictures.photos import Photos
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer
from vltok.verbs.inputs import weights_fingerprint


@pytest.fixture
def data() -> Photos:
    return Photos(size=16, val_crops=5, batch_size=2, workers=0)


@pytest.fixture
def tokenizer() -> DQVAE:
    return DQVAE(
        PatchEncoder([4, 8], width=8, blocks=1, channels=8),
        EntropyGate({4: 0.5, 8: 0.5}, [1.5]),
        EMAVectorQuantizer(16, 4),
        PixelShuffleDecoder(4, channels=8, width=8, blocks=1),
    )


def test_a_tokenizer_in_memory(tokenizer: DQVAE, data: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[tuple[int, int]] = []
    found = vltok.evaluate(tokenizer, data, device="cpu", progress=lambda done, total: told.append((done, total)))
    assert found.record.kind == "tokenizer" and found.record.figure("psnr") > 0
    assert found.record.subject["path"] == "DQVAE"
    assert found.record.subject["fingerprint"] == weights_fingerprint(tokenizer)
    assert found.measurement.images == len(found.examples) == 5 and found.files == ()
    assert told[0] == (0, 5) and told[-1] == (5, 5)
    assert list(tmp_path.iterdir()) == []


def test_the_bits_of_files_stand_beside_the_estimate(
    data: Photos, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_bundle(tmp_path / "bundle").spec
    found = vltok.evaluate(tmp_path / "bundle", data, device="cpu", examples=0).record
    assert "file_bits_per_pixel" not in found.values
    CodeTables.measure([], spec).save(tmp_path / "bundle")
    found = vltok.evaluate(tmp_path / "bundle", data, device="cpu", examples=0).record
    # equal frequencies: what the estimate says, a header of 14 bytes, and what rounding to bytes takes
    header = 8 * 14 / 16**2
    assert header <= found.figure("file_bits_per_pixel") - found.figure("bits_per_pixel") <= header + 16 / 16**2
    files = vltok.compress(tmp_path / "bundle", [image for batch in _pixels(data) for image in batch], device="cpu")
    mean = sum(each.bits_per_pixel for each in files.pictures) / len(files.pictures)
    assert found.figure("file_bits_per_pixel") == pytest.approx(mean)
    monkeypatch.setitem(sys.modules, "constriction", None)
    monkeypatch.delitem(sys.modules, "vltok.compression.coding", raising=False)
    monkeypatch.delitem(sys.modules, "vltok.compression.table_coder", raising=False)
    found = vltok.evaluate(tmp_path / "bundle", data, device="cpu", examples=0).record
    assert "file_bits_per_pixel" not in found.values and "constriction is not installed" in caplog.text


def _pixels(data: Photos) -> Iterator[Tensor]:
    """The pictures that are measured."""
    return (to_bytes(batch.images) for batch in data.val_dataloader())


def test_a_tokenizer_that_is_trained_goes_on_training(tokenizer: DQVAE, data: Photos) -> None:
    tokenizer.train()
    vltok.evaluate(tokenizer, data, device="cpu", examples=0)
    assert all(part.training for part in tokenizer.modules())


def test_a_folder_is_written_where_one_is_given(data: Photos, tmp_path: Path) -> None:
    found = [
        vltok.evaluate(data=data, codec="jpeg", quality=quality, device="cpu", out=tmp_path / str(quality))
        for quality in (20, 60)
    ]
    assert found[0].files[-1] == tmp_path / "20" / "report.html" and found[0].files[-1].is_file()
    compared = vltok.compare([tmp_path / "20", tmp_path / "60"])
    assert list(compared.comparison.records) == ["jpeg 20", "jpeg 60"] and compared.files == ()
    assert "psnr_bits_per_pixel" in compared.figures
    assert {path.name for path in tmp_path.iterdir()} == {"20", "60"}


class Killed(Exception):
    """What ends a part in its midst."""


@pytest.mark.parametrize(
    ("of", "parts", "killed"),
    [
        ({"tokenizer": "tokenizer", "perturb_codes": True, "probe_prior": True}, 4, 2),
        ({"codec": "jpeg", "quality": 50}, 8, 2),
        ({"prior": "prior", "count": 7}, 3, 1),
    ],
)
def test_parts_give_the_figures_of_the_whole_to_the_last_bit(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: dict, parts: int, killed: int
) -> None:
    monkeypatch.chdir(bundles)
    monkeypatch.setattr("vltok.evaluation.probe._STEPS", 2)
    done: list[int] = []

    def measured(part: str | None, out: Path, last: int | None = None, **others: object) -> Evaluation:
        def told(count: int, total: int) -> None:
            done.append(count)
            if last is not None and count >= last:
                raise Killed

        pictures = Photos(size=16, train_crops=2, val_crops=11, batch_size=2, workers=0)
        options = {**of, "features": "random:test_resnet", "examples": 5, **others}
        return vltok.evaluate(data=pictures, device="cpu", out=out, part=part, progress=told, **options)

    alone, out = measured(None, tmp_path / "alone"), tmp_path / "out"
    with pytest.raises(Killed):
        measured(f"{killed}/{parts}", out, last=2)
    for part in set(range(1, parts + 1)) - {killed}:
        found = measured(f"{part}/{parts}", out)
    assert found.missing == (killed,) and not found.files and not found.record.values
    with pytest.raises(UserError, match=rf"1 part of {parts} must be given again, or still run \(--array={killed}\)"):
        vltok.merge([out])
    with pytest.raises(UserError, match=r"holds parts of another evaluation \(--seed 0, not 1\): name another folder"):
        measured(f"{killed}/{parts}", out, seed=1)
    found = measured(f"{killed}/{parts}", out)
    assert found.new and not found.missing and found.files == tuple(out / path.name for path in alone.files)
    assert _but_seconds(found.record.values) == _but_seconds(alone.record.values)
    assert (found.record.codes, found.record.protocol) == (alone.record.codes, alone.record.protocol)
    for name in ("images.csv", "reconstructions.png", "unfolding.gif"):
        if (tmp_path / "alone" / name).exists():
            assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert [each.key for each in found.examples] == [each.key for each in alone.examples]
    assert not (out / ".unfinished").exists()
    done.clear()
    again = measured(f"1/{parts}", out)
    assert not again.new and again.record.values == found.record.values and not done


def _but_seconds(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if not name.startswith("seconds")}


def test_a_part_that_has_ended_measures_nothing_when_it_is_given_again(data: Photos, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        found = vltok.evaluate(
            data=data,
            codec="jpeg",
            quality=50,
            device="cpu",
            out=tmp_path / "out",
            part="2/2",
            progress=lambda done, total: told.append((done, total)),
        )
        assert found.missing == (1,)
    assert told[-1] == (0, 0) and (3, 3) in told
    (part,) = (tmp_path / "out" / ".unfinished").glob("part-*")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=r"part-000002\.safetensors' is damaged .* give part 2 again"):
        vltok.evaluate(data=data, codec="jpeg", quality=50, device="cpu", out=tmp_path / "out", part="1/2")
    part.unlink()
    found = vltok.evaluate(data=data, codec="jpeg", quality=50, device="cpu", out=tmp_path / "out", part="2/2")
    assert found.record.values and not found.missing


def test_parts_need_a_folder_and_a_quality(data: Photos, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say which with --out"):
        vltok.evaluate(data=data, codec="jpeg", quality=50, part="1/2")
    with pytest.raises(UserError, match="--bits-per-pixel tries qualities on all pictures"):
        vltok.evaluate(data=data, codec="jpeg", bits_per_pixel=1.0, part="1/2", out=tmp_path / "out")
    with pytest.raises(UserError, match="parts count from 1 to 2"):
        vltok.evaluate(data=data, codec="jpeg", quality=50, part="3/2", out=tmp_path / "out")


def test_what_does_not_go_together(data: Photos) -> None:
    with pytest.raises(UserError, match="say what is measured"):
        vltok.evaluate(data=data)


def test_a_prior_is_not_measured_on_other_classes(tree: Callable[..., Path], tmp_path: Path) -> None:
    write_bundle(tmp_path / "tokenizer")
    config = {**PRIOR, "init_args": {**PRIOR["init_args"], "classes": 3}}
    write_prior(tmp_path / "prior", config, fingerprint(tmp_path / "tokenizer"), ["class0", "class2", "class1"])
    pictures = Folder(str(tree()), size=16, batch_size=4, workers=0)
    with pytest.raises(UserError, match=r"--data: .* number 1 is 'class1' here and 'class2' there"):
        vltok.evaluate(prior=tmp_path / "prior", data=pictures, device="cpu")


def test_a_rate_is_part_of_the_protocol(tokenizer: DQVAE, data: Photos) -> None:
    few, many = (vltok.evaluate(tokenizer, data, rate=rate, device="cpu").record for rate in ("codes=4", "codes=13"))
    assert (few.figure("length"), many.figure("length")) == (4, 13)
    assert (few.protocol["rate"], many.protocol["rate"]) == ("codes=4", "codes=13")
    with pytest.raises(UserError, match="belongs to --tokenizer"):
        vltok.evaluate(data=data, codec="jpeg", quality=20, rate="codes=4", device="cpu")
    with pytest.raises(UserError, match="no rate is called"):
        vltok.evaluate(tokenizer, data, rate="code=4", device="cpu")


def test_what_a_generator_meets_is_measured_where_it_is_asked_for(
    data: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vltok.evaluation.probe._STEPS", 3)
    write_bundle(tmp_path / "bundle")
    told: list[tuple[int, int]] = []
    found = vltok.evaluate(
        tmp_path / "bundle",
        Photos(size=16, train_crops=6, val_crops=5, batch_size=2, workers=0),
        probe_prior=True,
        perturb_codes=True,
        device="cpu",
        examples=0,
        progress=lambda done, total: told.append((done, total)),
    ).record
    assert told[-1] == (5 + 6 + 5 + 5, 5 + 6 + 5 + 5)
    assert found.protocol["probe"]["pictures"] == 6 and found.protocol["perturbed"]["seed"] == 0
    assert 0 < found.figure("probe_bits_per_code") < 12 and 0 < found.figure("perturbed_50_psnr") < 60
    plain = vltok.evaluate(tmp_path / "bundle", data, device="cpu", examples=0).record
    assert not any(name.startswith(("probe", "perturbed")) for name in {**plain.values, **plain.protocol})
    assert all(found.values[name] == plain.values[name] for name in plain.values if name != "seconds_per_image")
    assert "probe_bits_per_image" in Comparison({"with": found, "without": plain}).columns
    other = dict(found.protocol, probe={**found.protocol["probe"], "pixels": "others"})
    with pytest.raises(UserError, match=r"'probe_bits_per_image' .* two protocols: probe\.pixels"):
        Comparison({"one": found, "two": dataclasses.replace(found, protocol=other)})
    with pytest.raises(UserError, match="--probe-prior tells of a tokenizer's codes"):
        vltok.evaluate(data=data, codec="jpeg", quality=20, probe_prior=True, device="cpu")
    with pytest.raises(UserError, match="leave --split out"):
        vltok.evaluate(tmp_path / "bundle", data, probe_prior=True, split="all", device="cpu")
