import pytest
import skimage.data
import torch

from tests.tokenizers.test_dqvae import SETS, gate_of, pictures, tiny
from vltok.errors import UserError
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import psnr
from vltok.measures.similarity import ssim
from vltok.rates import Rate
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.rate import RateEncoder, calibrate

STEERED = [factors for factors in SETS if len(factors) > 1]


@pytest.fixture(params=["gain", "feature", "entropy", "random"])
def gate(request):
    return request.param


def tokenizer_of(factors=(4, 8), gate="gain") -> DQVAE:
    torch.manual_seed(0)
    return tiny(factors, gate).eval()


@pytest.mark.parametrize("factors", STEERED, ids=str)
def test_counts_are_exact(factors, gate):
    tokenizer = tokenizer_of(factors, gate)
    images = pictures(3, 64, 64)
    each = tokenizer.spec.codes_per_region
    regions = (64 // factors[-1]) ** 2
    for finer in (0, 1, regions // 2, regions):
        count = (regions - finer) * each[0] + finer * each[-1]
        codes = tokenizer.encode(images, rate=f"codes={count}").validate(tokenizer.spec)
        assert codes.lengths.tolist() == [count] * 3


def test_a_count_that_no_image_can_have_names_the_nearest():
    with pytest.raises(UserError, match="can have 30 or 33 codes, not 32"):
        tokenizer_of().encode(pictures(), "codes=32")
    with pytest.raises(UserError, match="too low: images of this size have at least 24"):
        tokenizer_of().encode(pictures(), "codes=10")
    with pytest.raises(UserError, match=f"can have 96 codes, not {10**21}"):
        tokenizer_of().encode(pictures(), Rate("codes", 10**21))
    assert tokenizer_of().encode(pictures(), Rate("max-codes", 10**21)).lengths.max() <= 96


@pytest.mark.parametrize("factors", STEERED, ids=str)
def test_caps_are_kept_and_touch_nothing_below_them(factors, gate):
    tokenizer = tokenizer_of(factors, gate)
    images = pictures(4, 64, 64)
    own = tokenizer.encode(images)
    for cap in sorted({*own.lengths.tolist(), int(own.lengths.float().mean())}):
        codes = tokenizer.encode(images, f"max-codes={cap}").validate(tokenizer.spec)
        assert codes.lengths.max() <= cap
        within = own.lengths <= cap
        assert codes[within].lengths.equal(own.lengths[within])
        assert codes[within].grains.equal(own.grains[within])


@pytest.mark.parametrize("factors", STEERED, ids=str)
def test_a_batch_has_the_mean_to_within_a_step_and_shares_it_by_one_threshold(factors, gate):
    tokenizer = tokenizer_of(factors, gate)
    images = pictures(4, 64, 64)
    each, regions = tokenizer.spec.codes_per_region, (64 // factors[-1]) ** 2
    for share in (0.1, 0.5, 0.9):
        mean = regions * (each[0] + share * (each[-1] - each[0]))
        codes = tokenizer.encode(images, f"mean-codes={mean}")
        assert abs(codes.lengths.float().mean() - mean) <= max(torch.tensor(each).diff()) / 4
    scores = tokenizer.candidates(images).scores
    taken = torch.stack([(tokenizer.candidates(images).lengths[i] < n).sum() for i, n in enumerate(codes.lengths)])
    kept = torch.stack([scores[i, : taken[i]].min() for i in range(4) if taken[i]]).min()
    left = [scores[i, taken[i] :].max() for i in range(4) if taken[i] < scores.shape[1]]
    assert all(kept >= score for score in left)


def test_an_image_alone_has_what_the_calibration_says():
    tokenizer = tokenizer_of()
    images = pictures(8, 64, 64)
    assert tokenizer.encode(images[0], "mean-codes=100").lengths.item() == 100
    tokenizer.calibration = calibrate(tokenizer, [images[:4], images[4:]], "crops")
    assert tokenizer.calibration.pictures == 8
    for mean in (80.0, 128.0, 200.0):
        lengths = [tokenizer.encode(image, Rate("mean-codes", mean)).lengths.item() for image in images]
        assert abs(sum(lengths) / 8 - mean) <= 3
    with pytest.raises(UserError, match="64 to 256 codes"):
        tokenizer.encode(images, "mean-codes=300")


def test_bits_hold_the_codes_and_the_grain_map():
    tokenizer = tokenizer_of((4, 8, 16))
    images = pictures(3, 64, 64)
    for asked in (0.1, 0.2, 0.35):
        lengths = tokenizer.encode(images, f"bpp={asked}").lengths
        bits = fixed_rate_bits(lengths.double(), 16, tokenizer.spec) / 64**2
        more = fixed_rate_bits(lengths.double() + 3, 16, tokenizer.spec) / 64**2
        assert (bits <= asked).all() and (more > asked).all()
    with pytest.raises(UserError, match="too low: images of this size have at least 16"):
        tokenizer.encode(images, "bpp=0.01")
    assert tokenizer.encode(images, "bpp=1e308").lengths.tolist() == [256] * 3


def test_floors_are_those_of_what_is_shown():
    tokenizer = tokenizer_of()
    images = pictures(4, 64, 64)
    # what is added is easy
    images[..., 17:], images[..., 17:, :] = 0, 0
    found = tokenizer.candidates(images)
    finest = tokenizer.decode(found.after(torch.full((4,), found.scores.shape[1])))
    floor = psnr(finest[..., :17, :17], images[..., :17, :17]).min().item()
    codes = RateEncoder(tokenizer, Rate("psnr", floor))(images, (17, 17))
    decoded = tokenizer.decode(codes)
    assert (psnr(decoded[..., :17, :17], images[..., :17, :17]) >= floor).all()


@pytest.mark.parametrize("factors", STEERED, ids=str)
def test_floors_are_met_wherever_the_finest_codes_meet_them(factors):
    tokenizer = tokenizer_of(factors)
    images = pictures(4, 64, 64)
    found = tokenizer.candidates(images)
    finest = tokenizer.decode(found.after(torch.full((4,), found.scores.shape[1])))
    for name, figure in (("psnr", psnr), ("ssim", ssim)):
        best = figure(finest, images)
        floor = best.sort().values[1].item() - 1e-3
        codes = tokenizer.encode(images, Rate(name, floor))
        met = figure(tokenizer.decode(codes), images) >= floor
        assert met[best >= floor].all() and met.sum() >= 3
        most = found.lengths[:, -1]
        assert codes.lengths[~met].equal(most[~met])
    lenient = tokenizer.encode(images, "psnr=0.5")
    assert lenient.lengths.equal(found.lengths[:, 0])


def test_thresholds_take_the_steps_that_gain_more():
    tokenizer = tokenizer_of((4, 8), "entropy")
    images = pictures(3, 64, 64)
    assert tokenizer.encode(images, "threshold=0").equal(tokenizer.encode(images))
    lengths = [tokenizer.encode(images, f"threshold={value}").lengths.sum() for value in (-5, -0.5, 0.0, 0.5, 5)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] == 3 * 256 and lengths[-1] == 3 * 64


def test_ratios_are_those_of_every_image():
    tokenizer = tokenizer_of((4, 8, 16))
    codes = tokenizer.encode(pictures(3, 64, 64), "ratios=4:0.25,8:0.25,16:0.5")
    assert [(codes.grains == k).flatten(1).sum(1).tolist() for k in range(3)] == [[8] * 3, [4] * 3, [4] * 3]
    with pytest.raises(UserError, match=r"the tokenizer's factors are \[16, 8, 4\]"):
        tokenizer.encode(pictures(), "ratios=8:0.5,16:0.5")


def test_what_cannot_be_steered_says_so():
    fixed = tiny((4, 8), gate_of("fixed", (4, 8)))
    with pytest.raises(UserError, match="ranks no regions"):
        fixed.encode(pictures(), "codes=24")
    only = tiny((8,), gate_of("fixed", (8,)))
    assert only.encode(pictures(), "codes=24").lengths.tolist() == [24, 24]
    with pytest.raises(UserError, match="no rate is called 'kodes'"):
        only.encode(pictures(), "kodes=24")


def test_no_image_has_no_codes():
    assert len(tokenizer_of().encode(torch.zeros(0, 3, 16, 16), "codes=10")) == 0


def test_a_picture_gains_most_where_it_is_not_flat():
    """The left half is flat: the entropy ranks its regions last."""
    tokenizer = tokenizer_of((4, 8), "entropy")
    photograph = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0) / 127.5 - 1
    image = photograph[None, :, 128:256, 128:256].clone()
    image[..., :64] = 1
    codes = tokenizer.encode(image, "codes=496")
    assert codes.grains[0, :, 8:].sum() == 80 and not codes.grains[0, :, :8].any()


def test_a_calibration_on_pictures_of_one_kind_holds_for_others_of_it():
    photograph = torch.from_numpy(skimage.data.astronaut()).movedim(-1, 0) / 127.5 - 1
    crops = photograph.unfold(1, 32, 32).unfold(2, 32, 32).flatten(1, 2).movedim(1, 0)
    crops = crops[torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))]
    tokenizer = tokenizer_of((4, 8), "entropy")
    tokenizer.calibration = calibrate(tokenizer, crops[:128].split(32))
    alone = [tokenizer.encode(crop, "mean-codes=40").lengths.item() for crop in crops[128:]]
    assert abs(sum(alone) / len(alone) - 40) < 4
