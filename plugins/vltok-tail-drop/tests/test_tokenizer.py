import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

import vltok
from vltok.codes import Codes
from vltok.errors import UserError
from vltok.measures.pixels import to_unit_range
from vltok.pictures.photos import Photos
from vltok.registry import find
from vltok.testing import TokenizerContract
from vltok_tail_drop.lengths import FixedLength, LengthPolicy, MeanLength, PSNRTarget, pixel_errors
from vltok_tail_drop.tokenizer import TailDrop


def build(policy: LengthPolicy, quantizer: str = "vq", codebooks: int = 1, **options) -> TailDrop:
    """A small tokenizer of 16² pixels and up to 6 codes."""
    parts = {"backbone": "test_vit", "patch_size": 4, "encoder_depth": 1, "decoder_depth": 1}
    found = find("quantizer", quantizer).load()(size=16, dimension=4)
    if codebooks > 1:
        found = find("quantizer", "residual").load()(found, codebooks)
    return TailDrop(found, policy, **{**parts, "image_size": 16, "max_length": 6, **options})


class TestWithAFixedLength(TokenizerContract):
    def build(self):
        return build(FixedLength(4))


class TestWithAPSNRTarget(TokenizerContract):
    def build(self):
        return build(PSNRTarget(12.0))


class TestWithAMeanLength(TokenizerContract):
    def build(self):
        tokenizer = build(MeanLength(3.0))
        tokenizer.length_policy.calibrate(tokenizer.errors(images(8)))
        return tokenizer


class TestWithAveragedCodesOfSeveralIds(TokenizerContract):
    def build(self):
        return build(FixedLength(6), "ema-vq", codebooks=2)


def images(count: int) -> torch.Tensor:
    """Pictures of as many contrasts."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 16, 16, generator=generator).sub(0.5) * torch.linspace(0.1, 2, count).view(-1, 1, 1, 1)


def test_a_shorter_length_keeps_the_first_codes():
    tokenizer, pictures = build(FixedLength(6)), images(3)
    whole = tokenizer.encode(pictures).ids.view(3, 6)
    for length in range(1, 6):
        tokenizer.length_policy = FixedLength(length)
        codes = tokenizer.encode(pictures)
        assert codes.lengths.tolist() == [length] * 3 and codes.grains is None
        assert codes.ids.view(3, length).equal(whole[:, :length])


def test_what_is_dropped_changes_nothing():
    """The image of a prefix depends on the prefix alone, wherever it stands in a batch."""
    tokenizer, pictures = build(FixedLength(6)), images(3)
    whole = tokenizer.encode(pictures).ids.view(3, 6)
    lengths = torch.tensor([2, 6, 1])
    mixed = torch.cat([row[:length] for row, length in zip(whole, lengths, strict=True)])
    decoded = tokenizer.decode(Codes(mixed, lengths))
    for image, length in enumerate(lengths.tolist()):
        alone = tokenizer.decode(Codes(whole[image, :length], torch.tensor([length])))
        torch.testing.assert_close(decoded[image], alone[0])


def test_errors_are_those_of_each_length():
    tokenizer, pictures = build(FixedLength(6)), images(3)
    found = tokenizer.errors(pictures)
    for length in range(1, 7):
        tokenizer.length_policy = FixedLength(length)
        decoded = tokenizer.decode(tokenizer.encode(pictures))
        torch.testing.assert_close(found[:, length - 1], pixel_errors(decoded, pictures), rtol=1e-3, atol=1e-3)


def test_the_policy_decides_and_each_image_by_itself():
    tokenizer, pictures = build(FixedLength(6)), images(5)
    errors = tokenizer.errors(pictures)
    middle = float(10 * (255**2 / errors[2].median()).log10())
    tokenizer.length_policy = PSNRTarget(middle)
    lengths = tokenizer.encode(pictures).lengths
    assert lengths.equal(PSNRTarget(middle)(5, 6, lambda at: errors.gather(1, at - 1)))
    assert lengths.equal(torch.cat([tokenizer.encode(picture[None]).lengths for picture in pictures]))


def test_training_drops_tails_of_every_length_and_evaluation_asks_the_policy():
    tokenizer = build(FixedLength(2))
    torch.manual_seed(0)
    drawn = tokenizer.train()(images(200)).codes
    assert drawn.lengths.unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert drawn.validate(tokenizer.spec).ids.numel() == drawn.lengths.sum()
    assert tokenizer.eval()(images(3)).codes.lengths.tolist() == [2, 2, 2]


def test_dropped_codes_do_not_count_in_the_quantizer():
    """An averaged codebook sees as many vectors as codes were kept."""
    tokenizer = build(FixedLength(2), "ema-vq").train()
    before = tokenizer.quantizer.counts.clone()
    kept = tokenizer(images(8)).codes.lengths.sum()
    seen = (tokenizer.quantizer.counts - before * 0.99).sum() / 0.01
    unused = (tokenizer.quantizer.counts == 1).sum() * 1.0
    assert kept < 48 and seen <= kept + unused / 0.01


def test_after_a_short_training_each_further_code_helps():
    photograph = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0).float() / 127.5 - 1
    pictures = F.avg_pool2d(photograph, 4).unfold(1, 16, 16).unfold(2, 16, 16).flatten(1, 2).movedim(1, 0)
    tokenizer = build(MeanLength(3.0), "ema-vq").train()
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=2e-3)
    for _ in range(100):
        optimizer.zero_grad()
        output = tokenizer(pictures)
        ((output.reconstruction - pictures).abs().mean() + output.losses["quantization"]).backward()
        optimizer.step()
    errors = tokenizer.errors(pictures).mean(dim=0)
    assert errors.diff().max() < 0, "on average, a longer prefix gives a better image"
    assert errors[-1] < 0.9 * errors[0]
    lengths = tokenizer.eval().encode(pictures).lengths.float()
    assert lengths.mean().item() == pytest.approx(3, abs=1) and lengths.unique().numel() > 2


def test_a_mean_length_is_learned_while_training():
    tokenizer = build(MeanLength(3.0)).train()
    assert not tokenizer.length_policy.threshold
    tokenizer(images(8))
    assert tokenizer.length_policy.threshold > 0
    threshold = tokenizer.length_policy.threshold.clone()
    tokenizer.eval()(images(8))
    assert tokenizer.length_policy.threshold.equal(threshold)


def test_every_length_is_tried_in_pieces(monkeypatch):
    tokenizer, pictures = build(FixedLength(6)), images(3)
    expected = tokenizer.errors(pictures)
    monkeypatch.setattr("vltok_tail_drop.tokenizer.MOST_PIXELS", 4 * 16**2)
    torch.testing.assert_close(tokenizer.errors(pictures), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("max_length", {"max_length": 1}),
        ("decoder_depth", {"decoder_depth": 0}),
        ("encoder_depth", {"encoder_depth": 99}),
        ("image_size", {"image_size": 18}),
        ("max_length is 17, but must be at most 16", {"max_length": 17}),
        ("vit_small", {"backbone": "vit_smal_patch16_224"}),
        ("VisionTransformer", {"backbone": "test_resnet"}),
        ("length_policy.length is 7", {"policy": FixedLength(7)}),
        ("length_policy.length is 6.5", {"policy": MeanLength(6.5)}),
    ],
)
def test_what_does_not_fit_is_refused(key, arguments):
    with pytest.raises(UserError, match=key):
        build(**{"policy": FixedLength(2), **arguments})


def test_a_policy_that_is_given_later_must_fit_too():
    tokenizer = build(FixedLength(2))
    tokenizer.length_policy = FixedLength(7)
    with pytest.raises(UserError, match="max_length"):
        tokenizer.encode(images(1))


def test_the_blocks_are_timms():
    tokenizer = build(FixedLength(2), encoder_depth=3, decoder_depth=2)
    assert len(tokenizer.encoder.blocks) == 3 and len(tokenizer.decoder.blocks) == 2
    assert all(type(block).__module__.startswith("timm.") for block in tokenizer.decoder.blocks)
    assert isinstance(tokenizer.last_layer, nn.Parameter) and tokenizer.image_size == (16, 16)


def test_its_rates_are_calibrated_and_measured(tmp_path):
    tokenizer = build(FixedLength(4))
    data = Photos(size=16, batch_size=8, train_crops=30, val_crops=8)
    found = vltok.rate(tokenizer, data, tmp_path, points=6, codecs=False)
    assert found.calibration.shares[0] == pytest.approx(1 / 6) and found.calibration.shares[-1] == 1
    lengths = [point.mean["length"] for point in found.curve.points]
    assert lengths == sorted(lengths) and lengths[0] < 2 and lengths[-1] == 6
    assert found.curve.own.images["length"].tolist() == [4] * 8 and len(found.files) == 3
    # on pictures that it was calibrated on, the mean is what was asked for
    seen = [to_unit_range(sample.pixels) for sample in data.export_source("train").read(range(30))]
    for mean in (2.5, 4.0):
        alone = [tokenizer.encode(image, f"mean-codes={mean}").lengths.item() for image in seen]
        assert abs(sum(alone) / len(alone) - mean) <= 0.1


def test_a_bundle_has_the_policy_that_was_given_later(tmp_path):
    tokenizer = build(FixedLength(4))
    tokenizer.length_policy = PSNRTarget(12.0)
    vltok.save_tokenizer(tokenizer, tmp_path / "bundle")
    assert vltok.load_tokenizer(tmp_path / "bundle").encode(images(3)).equal(tokenizer.encode(images(3)))


#: Six tiles.
PICTURE = skimage.data.astronaut()[:30, 100:148]


def test_every_beginning_of_a_file_is_a_picture_once_it_has_a_code_of_each_tile(caplog):
    tokenizer = build(FixedLength(6))
    (file,) = vltok.compress(tokenizer, PICTURE).pictures  # four bits a code
    (whole,) = vltok.decompress(tokenizer, file.data, progressive=True).pictures
    assert (whole.pixels == vltok.reconstruct(tokenizer, PICTURE).pictures[0].pixels).all() and not whole.held
    # of one code a tile, two, and four
    for stage, most in zip(whole.growing, (1, 2, 4), strict=True):
        tokenizer.length_policy = FixedLength(most)
        assert (stage == vltok.reconstruct(tokenizer, PICTURE).pictures[0].pixels).all()
    prefixes = [file.data[:size] for size in range(file.size)]
    found = vltok.decompress(tokenizer, prefixes, progressive=True)
    held = [int(each.held.removesuffix(" codes")) for each in found.pictures]
    assert held == sorted(held) and 6 <= held[0] < 12 and held[-1] >= 33 and "which hold" in caplog.text
    assert (found.pictures[0].growing or (found.pictures[0].pixels,))[0].tolist() == whole.growing[0].tolist()
    assert all("cut" in reason or "no .vlt file" in reason for reason in found.failed.values())


def test_tiles_of_a_picture_share_its_codes():
    tokenizer = build(FixedLength(6))
    for count in (6, 17, 36):
        (file,) = vltok.compress(tokenizer, PICTURE, rate=f"codes={count}").pictures
        assert file.code_length == count
    (file,) = vltok.compress(tokenizer, PICTURE, rate="max-codes=20").pictures
    assert file.code_length == 20
    best = vltok.reconstruct(tokenizer, PICTURE).record.figure("psnr")
    (found,) = vltok.reconstruct(tokenizer, PICTURE, rate=f"psnr={best - 0.01}").pictures
    assert found.figures.psnr >= best - 0.01
