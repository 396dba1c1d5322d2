"""Pictures of a size that is asked for, by a prior of any grid."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import vltok
from tests.cli.exports import CONFIG, PRIOR, write_bundle
from vltok.cli.main import main
from vltok.compression.file_format import unpack
from vltok.compression.prior_coder import PriorCoder
from vltok.errors import UserError
from vltok.pictures.photos import Photos
from vltok.sequences.manifest import CodeManifest
from vltok.testing import pictures, random_codes
from vltok.verbs import prior_report

SIZE = (16, 24)  # of regions of 8 × 8 pixels


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    """A tokenizer, a prior of any grid, and one of 2 × 2 regions."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "tokenizer", config=CONFIG)
    arguments = {key: value for key, value in PRIOR["init_args"].items() if key != "regions"}
    for name, options in (("any", arguments), ("square", PRIOR["init_args"])):
        prior = vltok.build({"class_path": "dq-transformer", "init_args": options})
        vltok.save_prior(prior, folder / name, vltok.fingerprint(folder / "tokenizer"), ["../tokenizer"])
    return folder


@pytest.fixture
def line(capsys):
    """The one line of an error."""

    def read(arguments: list[str]) -> str:
        assert main(arguments) != 0
        (found,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vltok:")]
        return found

    return read


def test_pictures_have_the_size_that_is_asked_for(bundles, tmp_path, line):
    command = ["sample", "--prior", str(bundles / "any"), "--device=cpu", f"--out={tmp_path / 'drawn'}"]
    assert main([*command, "--size=16x24", "--count=2", "--codes=9"]) == 0
    assert main([*command, "--size=16x24", "--count=3", "--codes=9"]) == 0
    drawn = sorted((tmp_path / "drawn" / "pictures").iterdir())
    assert [Image.open(path).size for path in drawn] == [(24, 16)] * 3
    assert CodeManifest.read(tmp_path / "drawn" / "codes").spec.regions == (2, 3)
    assert "--size" in line([*command, "--size=24x16", "--count=4", "--codes=9"])
    found = vltok.sample(bundles / "any", 3, size=SIZE, sampling=vltok.load_prior(bundles / "any").sampling(codes=9))
    assert found.pictures.shape == (3, 3, *SIZE) and found.codes.lengths.tolist() == [9] * 3
    for size in ("32", 32):
        assert vltok.sample(bundles / "any", 1, size=size).pictures.shape == (1, 3, 32, 32)
    other = vltok.load_prior(bundles / "any").sampling(regions=(2, 2))
    with pytest.raises(UserError, match=r"--size \(16, 24\) is of \(2, 3\) regions, sampling.regions \(2, 2\)"):
        vltok.sample(bundles / "any", 1, size=SIZE, sampling=other)


def test_a_size_that_cannot_be_drawn_is_refused_in_one_line(bundles, tmp_path, line):
    command = ["sample", "--prior", str(bundles / "any"), "--device=cpu", f"--out={tmp_path / 'drawn'}"]
    assert "in multiples of 8 pixels, as in --size 64x96" in line(command)
    assert "multiples of 8; the nearest is 16x24" in line([*command, "--size=17x23"])
    for wrong in ("16y24", "0x16", "-8", "8x8x8"):
        assert "--size must be" in line([*command, f"--size={wrong}"])
    command[2] = str(bundles / "square")
    assert "the prior draws pictures of 16x16 alone: leave it out" in line([*command, "--size=16x24"])
    assert not (tmp_path / "drawn").exists()
    assert vltok.sample(bundles / "square", 1, size=(16, 16)).pictures.shape == (1, 3, 16, 16)


def test_a_part_of_a_picture_of_any_size_is_kept(bundles, tmp_path, line):
    Image.new("L", (24, 16), 255).save(tmp_path / "mask.png")
    pixels = (pictures(1, *SIZE)[0] * 127.5 + 127.5).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    keep = (tmp_path / "mask.png", tmp_path / "picture.png")
    drawn, tokenizer = vltok.sample(bundles / "any", 2, keep=keep).codes, vltok.load_tokenizer(bundles / "tokenizer")
    expected = tokenizer.encode(vltok.load_image(keep[1])[None])
    assert all(image.ids.equal(expected.ids) for image in drawn)
    for path in keep:
        Image.open(path).resize((25, 15)).save(path)
    with pytest.raises(UserError, match=r"25 × 15 pixels, which must be multiples of 8: give .* --size 8x24"):
        vltok.sample(bundles / "any", 2, keep=keep)


def test_pictures_of_any_size_are_compressed_and_measured(bundles):
    prior = vltok.load_prior(bundles / "any")
    coder = PriorCoder(prior, "00")
    for regions in ((2, 3), (3, 2), (1, 1)):
        (codes,) = random_codes(vltok.CodeSpec(300, (8, 4), regions), 1)
        (tile,) = coder.decode(coder.encode([codes]), [regions])
        assert tile.codes.equal(codes)
    photos, bundle = Photos(size=[(16, 24), (24, 16)], val_crops=2, batch_size=2, workers=0), bundles / "tokenizer"
    found = vltok.evaluate(bundle, photos, prior=prior, count=4, device="cpu")
    grids = [tuple(example.codes.grains.shape[1:]) for example in found.examples]
    assert grids == [(2, 3)] * 2 + [(3, 2)] * 2
    found = vltok.evaluate(bundle, photos, prior=prior, count=1, sampling=prior.sampling(regions=(3, 3)), device="cpu")
    assert found.examples[0].codes.grains.shape == (1, 3, 3)


def test_a_training_on_several_sizes_gives_a_prior_that_draws_any(bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--data.size=[[16, 24], [24, 16]]", "--data.batch_size=4", "--data.workers=0", "--device=cpu"]
    for split in ("train", "val"):
        export = ["tokenize", "--tokenizer", str(bundles / "tokenizer"), "--split", split, "--out", f"codes/{split}"]
        assert main([*export, *sizes, "--data.train_crops=20", "--data.val_crops=6"]) == 0
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart_sizes_prior.yaml"
    changes = {
        **{"data.root": "codes/train", "data.validation": "codes/val", "model.prior.position_transformer.width": 16},
        **{"trainer.max_steps": 3, "trainer.precision": "32-true", "trainer.accelerator": "cpu"},
    }
    shown: list[torch.Size] = []
    grid = prior_report.sample_grid
    monkeypatch.setattr(
        prior_report,
        "sample_grid",
        lambda images, *rest, **how: shown.append(images.shape) or grid(images, *rest, **how),
    )
    vltok.fit(recipe, out="run", overrides=changes)
    assert shown == [(8, 3, 16, 24), (8, 3, 24, 16)]  # each size in turn
    assert vltok.load_prior("run/bundle").spec.any_grid and (tmp_path / "run" / "samples.png").is_file()
    (file,) = vltok.compress(bundles / "tokenizer", torch.zeros(3, 16, 48), prior="run/bundle").pictures
    assert 8 * unpack(file.data).header.tile == 24  # the longest side of a picture that it was trained on
    assert vltok.sample("run/bundle", 2, size="24x24").pictures.shape == (2, 3, 24, 24)
