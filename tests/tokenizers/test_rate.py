import pytest
import skimage.data
import torch

from tests.tokenizers.test_dqvae import SETS, gate_of, pictures, tiny
from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.interfaces import Alternatives, Steerable, Tokenizer
from vltok.interfaces.gate import GateDecision
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import picture_psnr, psnr, to_bytes
from vltok.measures.similarity import picture_ssim, ssim
from vltok.rates import Rate
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.grain_steps import GrainSteps
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
    floor = psnr(finest[..., :17, :17], images[..., :17, :17]).min().item() - 1e-4
    for image in images:
        (codes,) = RateEncoder(tokenizer, Rate("psnr", floor)).tiles(
            to_bytes(image), [(slice(0, 64), slice(0, 64))], (17, 17), "cpu"
        )
        assert psnr(tokenizer.decode(codes)[..., :17, :17], image[None, :, :17, :17]) >= floor


#: Two rows and two columns of tiles, the last of which are smaller; the picture ends within them.
PLACES = [(down, across) for down in (slice(0, 64), slice(64, 96)) for across in (slice(0, 64), slice(64, 112))]
SHOWN = 90, 105


def stitched(parts: list[torch.Tensor], factor: int) -> torch.Tensor:
    """What lies on the regions of the tiles, as that of the picture."""
    whole = torch.zeros(96 // factor, 112 // factor, dtype=parts[0].dtype)
    for (down, across), part in zip(PLACES, parts, strict=True):
        whole[down.start // factor : down.stop // factor, across.start // factor : across.stop // factor] = part
    return whole


@pytest.mark.parametrize("factors", [(4, 8), (4, 8, 16)], ids=str)
def test_tiles_share_the_codes_of_their_picture(factors):
    """What regions gain is seen in them alone, so that tiles get what they would get in one."""
    tokenizer = tokenizer_of(factors, "entropy")
    picture = to_bytes(pictures(1, 96, 112)[0])
    for rate in ("codes=399", "max-codes=399", "bpp=0.3", "threshold=0.25"):
        tiles = RateEncoder(tokenizer, Rate.of(rate)).tiles(picture, PLACES, (96, 112), "cpu")
        whole = tokenizer.encode(picture, rate)
        assert sum(int(tile.lengths) for tile in tiles) == int(whole.lengths)
        if len(factors) == 2:  # of more, the last codes go where a tile has use for them
            assert stitched([tile.grains[0] for tile in tiles], 8).equal(whole.grains[0]), rate


def test_a_cap_above_the_own_choice_of_a_picture_touches_none_of_its_tiles():
    tokenizer = tokenizer_of((4, 8), "entropy")
    picture = to_bytes(pictures(1, 96, 112)[0])
    own = [tokenizer.encode(picture[None, :, down, across]) for down, across in PLACES]
    total = sum(int(tile.lengths) for tile in own)
    assert max(int(tile.lengths) / tile.grains.numel() for tile in own) > 1.1 * total / 168, "one has more than others"
    found = RateEncoder(tokenizer, Rate("max-codes", total)).tiles(picture, PLACES, SHOWN, "cpu")
    assert all(one.equal(other) for one, other in zip(found, own, strict=True))
    fewer = RateEncoder(tokenizer, Rate("max-codes", total - 1)).tiles(picture, PLACES, SHOWN, "cpu")
    assert sum(int(tile.lengths) for tile in fewer) == total - 3


@pytest.mark.parametrize(("kind", "figure"), [("psnr", picture_psnr), ("ssim", picture_ssim)])
def test_tiles_reach_together_what_is_asked_of_their_picture(kind, figure):
    tokenizer = tokenizer_of()
    picture = to_bytes(pictures(1, 96, 112)[0])

    def reached(rate: Rate) -> tuple[float, int]:
        codes = RateEncoder(tokenizer, rate).tiles(picture, PLACES, SHOWN, "cpu")
        decoded = torch.empty_like(picture)
        for (down, across), tile in zip(PLACES, codes, strict=True):
            decoded[:, down, across] = to_bytes(tokenizer.decode(tile)[0])
        value = figure(decoded[:, : SHOWN[0], : SHOWN[1]], picture[:, : SHOWN[0], : SHOWN[1]])
        return value, sum(int(tile.lengths) for tile in codes)

    finest, most = reached(Rate("codes", 672))
    floor = finest - 1e-6
    assert reached(Rate(kind, floor))[0] >= floor
    assert reached(Rate(kind, 0.999 if kind == "ssim" else 90)) == (finest, most)


def test_lpips_of_tiles_is_their_mean(monkeypatch):
    monkeypatch.setattr("vltok.losses.perceptual.LPIPS.load_or", lambda *_: None)
    distance = lambda network: lambda one, other: (one - other).abs().mean(dim=(1, 2, 3))  # noqa: E731
    monkeypatch.setattr("vltok.losses.perceptual.each_distance", distance)
    picture = to_bytes(pictures(1, 96, 112)[0])
    tokenizer = tokenizer_of()
    for limit, length in ((9.0, 168), (1e-9, 672)):
        codes = RateEncoder(tokenizer, Rate("lpips", limit)).tiles(picture, PLACES, (90, 70), "cpu")
        assert sum(int(tile.lengths) for tile in codes) == length


def test_without_the_weights_of_lpips_another_rate_is_named(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", refuse)
    with pytest.raises(UserError, match=r"VGG16.*or ask for another rate, such as ssim=0\.9") as error:
        RateEncoder(tokenizer_of(), Rate("lpips", 0.2))
    assert "recipe" not in str(error.value)


def test_without_calibration_a_picture_alone_has_no_mean_to_keep_and_a_line_says_so(caplog):
    tokenizer = tokenizer_of()
    encode = RateEncoder(tokenizer, Rate("mean-codes", 50))
    for image in pictures(3, 32, 32):
        assert encode(image[None]).lengths.item() == 49
    (line,) = caplog.messages
    assert (
        line.startswith("rate mean-codes=50: a picture that is encoded alone gets at most so many")
        and "vltok rate" in line
    )
    tokenizer.calibration = calibrate(tokenizer, [pictures(3, 32, 32)])
    caplog.clear()
    RateEncoder(tokenizer, Rate("mean-codes", 50))(pictures(1, 32, 32))
    assert not caplog.messages


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


def test_a_calibrated_mean_holds_for_other_pictures_each_alone():
    """Crops of the same photographs, of which calibration saw every second one."""
    photographs = (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket())
    crops = torch.cat(
        [
            (torch.from_numpy(photograph).movedim(-1, 0) / 127.5 - 1).unfold(1, 32, 14).unfold(2, 32, 14).flatten(1, 2)
            for photograph in photographs
        ],
        dim=1,
    ).movedim(1, 0)
    tokenizer = tokenizer_of((4, 8), "entropy")
    tokenizer.calibration = calibrate(tokenizer, crops[::2].split(256))
    most = (32 // 4) ** 2
    unseen = [tokenizer.candidates(part) for part in crops[1::2].split(256)]
    for share in (0.4, 0.6, 0.8):
        encode = RateEncoder(tokenizer, Rate("mean-codes", share * most))
        alone = torch.cat([encode(crop[None]).lengths for crop in crops[1:200:40]])
        # all others without encoding each
        threshold = tokenizer.calibration.threshold(share)
        every = torch.cat([part.above(threshold).lengths for part in unseen])
        assert alone.equal(every[:100:20])
        assert every.float().mean().item() == pytest.approx(share * most, rel=0.005)


class Drawn(Tokenizer, Steerable):
    """A tokenizer of three granularities whose pictures, numbers from 0 on, gain what was drawn for them."""

    spec = CodeSpec(2, (16, 8, 4))
    divisor = 1

    def __init__(self, pictures: int, seed: int, flat: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        regions = torch.randn(pictures, 1, 9, generator=generator) + torch.randn(pictures, 1, 9, generator=generator)
        regions += 0.3 * torch.randn(pictures, 1, 1, generator=generator)  # pictures differ as a whole
        scores = torch.cat([regions, regions - 2], dim=1).exp()
        scores *= torch.rand(pictures, 1, 9, generator=generator) >= flat  # regions without a structure gain nothing
        self.grains = torch.zeros(pictures, 3, 3, dtype=torch.long)
        self.scores = scores.view(pictures, 2, 3, 3)

    def candidates(self, images: torch.Tensor) -> GrainSteps:
        chosen = images[:, 0, 0, 0].long()
        grains = self.grains[chosen]
        decision = GateDecision.hard(grains, 3, step_scores=self.scores[chosen])
        maps = torch.zeros(3, len(chosen), 12, 12, dtype=torch.long)
        return GrainSteps(Alternatives(decision, maps), self.spec)

    def batches(self) -> list[torch.Tensor]:
        return list(torch.arange(float(len(self.grains))).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).split(1000))

    encode_batch = decode_batch = forward = None


@pytest.mark.parametrize("flat", [0.0, 0.2])
def test_what_keeps_a_mean_from_being_met_is_the_number_of_pictures_alone(flat):
    """On those that were measured a mean is met; that of others differs as the means of so many do."""
    seen, unseen = (Drawn(20_000, seed, flat) for seed in (0, 1))
    calibration = calibrate(seen, seen.batches())
    for share in (0.3, 0.4, 0.6, 0.75):
        threshold = calibration.threshold(share)
        same, others = (
            torch.cat([tokenizer.candidates(part).above(threshold).lengths for part in tokenizer.batches()]).double()
            for tokenizer in (seen, unseen)
        )
        assert same.mean().item() == pytest.approx(share * 144, rel=5e-4), "nothing is lost between what was measured"
        deviation = (2 / len(others)) ** 0.5 * others.std().item()
        assert deviation < 0.004 * share * 144
        assert abs(others.mean().item() - share * 144) < 3 * deviation
