"""Pictures of which a mask keeps a part."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vltok
from tests.cli.exports import CONFIG, PRIOR, write_bundle
from vltok.cli.main import main
from vltok.errors import UserError
from vltok.interfaces import Kept
from vltok.testing import pictures

# two regions of 8 × 8 pixels a side
SIZE = 16


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "tokenizer", config=CONFIG)
    places = ["../tokenizer"]
    for name in ("raster-scan", "global-local", "dq-transformer"):
        layers = {"global_layers": 1, "local_layers": 1} if name == "global-local" else {}
        arguments = {key: value for key, value in PRIOR["init_args"].items() if not (layers and "layers" in key)}
        prior = vltok.build({"class_path": name, "init_args": {**arguments, **layers}})
        vltok.save_prior(prior, folder / name, vltok.fingerprint(folder / "tokenizer"), places)
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> tuple[Path, Path]:
    """A mask that keeps the left half but for a pixel, and a picture."""
    folder = tmp_path_factory.mktemp("given")
    mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[:, : SIZE // 2] = 255
    mask[-1, 0] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    pixels = (pictures(1, SIZE, SIZE)[0] * 127.5 + 127.5).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder / "mask.png", folder / "picture.png"


@pytest.mark.parametrize("name", ["raster-scan", "global-local", "dq-transformer"])
def test_what_is_white_stays_and_the_rest_is_drawn(bundles, given, name):
    tokenizer = vltok.load_tokenizer(bundles / "tokenizer")
    codes = tokenizer.encode(vltok.load_image(given[1])[None])
    drawn = vltok.sample(bundles / name, 6, tokenizer=tokenizer, keep=given).codes
    # the region below has a pixel that is black
    assert (drawn.grains[:, 0, 0] == codes.grains[0, 0, 0]).all()
    maps, expected = drawn.to_code_map(tokenizer.spec), codes.to_code_map(tokenizer.spec)
    side = tokenizer.spec.sides[-1]
    assert (maps[:, :side, :side] == expected[:, :side, :side]).all()
    assert (maps[:, side:, :side] != expected[:, side:, :side]).any() and (maps[0] != maps[1]).any()


def test_a_grain_map_may_be_given(bundles):
    prior = vltok.load_prior(bundles / "raster-scan")
    grains = torch.tensor([[0, 1], [1, 1]])
    drawn = vltok.sample(prior, 3, tokenizer=bundles / "tokenizer", keep=Kept.grain_map(grains, prior.spec)).codes
    assert (drawn.grains == grains).all() and (drawn.ids[:13] != drawn.ids[13:26]).any()


def test_a_larger_picture_is_resized_with_its_mask(bundles, given, tmp_path):
    larger = [tmp_path / path.name for path in given]
    for path, out in zip(given, larger, strict=True):
        Image.open(path).resize((4 * SIZE, 2 * SIZE), Image.Resampling.NEAREST).save(out)
    drawn = vltok.sample(bundles / "raster-scan", 1, keep=larger)
    assert drawn.pictures.shape == (1, 3, SIZE, SIZE)


def test_the_command_takes_mask_and_picture_and_goes_on_with_these_alone(bundles, given, tmp_path, capsys):
    command = ["sample", "--prior", str(bundles / "raster-scan"), "--count", "2", "--out", str(tmp_path / "out")]
    assert main([*command, "--keep", *map(str, given)]) == 0
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 2
    assert main([*command, "--keep", *map(str, given)]) == 0
    assert main(command) == 1
    assert "--keep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda mask, picture: [mask], "takes a mask and a picture, as in --keep MASK.png PHOTO.jpg, not 1 of them"),
        (lambda mask, picture: [Image.new("L", (9, 9), 255), picture], "must be of one size, but have 9 × 9 and 16 ×"),
        (lambda mask, picture: [Image.new("L", (SIZE, SIZE)), picture], "is white all over in no region of 8 × 8"),
    ],
)
def test_what_keeps_nothing_is_refused_in_a_line(bundles, given, wrong, said):
    with pytest.raises(UserError, match=f"^--keep.*{said}"):
        vltok.sample(bundles / "raster-scan", 1, keep=wrong(*given))
    with pytest.raises(UserError, match="codes sets the length of an image, of which a part is kept here"):
        vltok.sample(bundles / "raster-scan", 1, keep=given, rate="codes=4")
