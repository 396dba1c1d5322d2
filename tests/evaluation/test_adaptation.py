"""Adaptation, on a tokenizer whose errors are known: a region's granularity alone sets its error."""

import numpy as np
import pytest
import skimage.data
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation import adaptation
from vltok.evaluation.adaptation import adaptive, measure_adaptation, picture_crops
from vltok.interfaces import Adaptive, Alternatives, GateDecision, Tokenizer, TokenizerOutput
from vltok.measures.gain import gain_share
from vltok.tokenizers.decoders import PixelShuffleDecoder
from vltok.tokenizers.dqvae import DQVAE
from vltok.tokenizers.encoders import PatchEncoder
from vltok.tokenizers.gates import EntropyGate, FixedGate
from vltok.tokenizers.quantizers import EMAVectorQuantizer


class Known(Tokenizer, Adaptive):
    """Pictures are grey. A pixel's code is its region's level plus 10 times its granularity; decoding loses the level
    of coarse codes, half of it at the middle granularity, and nothing at the finest."""

    def __init__(self, grains: Tensor, logits: Tensor | None = None, factors: tuple[int, ...] = (8, 4)) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self._spec = CodeSpec(100, factors)
        self.grains, self.logits = grains, logits
        self.most = 0
        self.imprecise: set[bool] = set()

    @property
    def spec(self) -> CodeSpec:
        return self._spec

    @property
    def divisor(self) -> int:
        return self._spec.factors[0]

    def alternatives(self, images: Tensor) -> Alternatives:
        levels = (images[:, 0, :: self._spec.factors[-1], :: self._spec.factors[-1]] * 9).round().long()
        maps = torch.stack([levels + 10 * k for k in range(self._spec.granularities)])
        count = self._spec.granularities
        return Alternatives(GateDecision.hard(self.grains[: len(images)], count, self.logits), maps)

    def encode_batch(self, images: Tensor) -> Codes:
        found = self.alternatives(images)
        return Codes.from_code_map(found.mixture(found.decision.grains), found.decision.grains, self._spec)

    def decode_batch(self, codes: Codes) -> Tensor:
        self.most = max(self.most, len(codes))
        self.imprecise.add(torch.backends.cudnn.allow_tf32)
        codes_bhw = codes.to_code_map(self._spec)
        kept = (codes_bhw // 10) / (self._spec.granularities - 1)
        values = (codes_bhw % 10) / 9 * kept
        side = self._spec.factors[-1]
        return values.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, None].expand(-1, 3, -1, -1)

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode(images)
        return TokenizerOutput(self.decode(codes), codes, {})


def levels(batch: int = 2, height: int = 3, width: int = 4) -> Tensor:
    """A level of 0 to 9 for each region."""
    return torch.randint(10, (batch, height, width))


def images_of(levels: Tensor, region: int = 8) -> Tensor:
    pixels = (levels / 9).repeat_interleave(region, 1).repeat_interleave(region, 2)
    return pixels[:, None].expand(-1, 3, -1, -1)


def errors_of(levels: Tensor, granularities: int, region: int) -> np.ndarray:
    """The errors of each region at each granularity: of 3 · region² values, each lacks a share of the level."""
    lost = 1 - torch.arange(granularities) / (granularities - 1)
    return (3 * region**2 * (levels.flatten()[:, None] / 9 * lost).square()).double().numpy()


@pytest.mark.parametrize("factors", [(8, 4), (8, 4, 2)])
def test_every_figure_is_that_of_the_definition(factors) -> None:
    shown, count = levels(), len(factors)
    grains, logits = torch.randint(count, shown.shape), torch.randn(2, count, 3, 4)
    figures = measure_adaptation(Known(grains, logits, factors), [images_of(shown)])
    errors = errors_of(shown, count, 8)
    chosen = grains.flatten().numpy()
    gains = errors[:, 0] - errors[:, -1]
    margins = (logits.softmax(1) * torch.arange(count)[:, None, None]).sum(1).flatten().numpy()
    assert (figures.images, figures.regions) == (2, 24)
    assert figures.values["gain_correlation"].value == pytest.approx(spearmanr(chosen, gains).statistic, abs=1e-5)
    assert figures.values["coarse_error_correlation"].value == pytest.approx(
        spearmanr(chosen, errors[:, 0]).statistic, abs=1e-5
    )
    assert figures.values["margin_gain_correlation"].value == pytest.approx(
        spearmanr(margins, gains).statistic, abs=1e-5
    )
    assert figures.values["margin_error_correlation"].value == pytest.approx(
        spearmanr(margins, errors[:, 0]).statistic, abs=1e-5
    )
    assert figures.values["gain_share"].value == pytest.approx(gain_share(errors, chosen), abs=1e-4)
    steps = [name for name in figures.values if name.startswith("step_gain_correlation_")]
    assert steps == [f"step_gain_correlation_{factor}" for factor in factors[1:]]


def test_the_best_choice_has_all_and_its_contrary_less_than_nothing() -> None:
    shown = torch.arange(24).view(2, 3, 4) % 10
    best = (shown > 5).long()
    assert measure_adaptation(Known(best), [images_of(shown)]).values["gain_share"].value == pytest.approx(1)
    worst = measure_adaptation(Known((shown < 4).long()), [images_of(shown)])
    assert worst.values["gain_share"].value < -0.5 and worst.values["gain_correlation"].value < -0.5


@pytest.mark.parametrize("grain", [0, 1])
def test_where_all_regions_are_alike_nothing_is_defined(grain) -> None:
    figures = measure_adaptation(Known(torch.full((2, 3, 4), grain)), [images_of(levels())])
    assert figures.values == {}


def test_memory_is_bounded_and_the_number_of_images_and_regions_is(monkeypatch) -> None:
    grains = torch.randint(2, (4, 3, 4))
    tokenizer, shown = Known(grains), images_of(levels(4))
    whole = measure_adaptation(tokenizer, [shown])
    monkeypatch.setattr(adaptation, "MOST_PIXELS", 5 * 24 * 32)
    tokenizer.most = 0
    assert measure_adaptation(tokenizer, [shown]) == whole
    assert tokenizer.most == 5
    some = measure_adaptation(tokenizer, [shown[:2], shown[2:]], images=3, regions=7)
    assert (some.images, some.regions) == (3, 21)


def test_it_computes_in_whole_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    tokenizer = Known((levels() > 4).long())
    measure_adaptation(tokenizer, [images_of(levels())])
    assert tokenizer.imprecise == {False} and torch.backends.cudnn.allow_tf32 is before


def test_a_real_tokenizer_in_training_keeps_its_mode_and_state() -> None:
    photograph = torch.from_numpy(skimage.data.astronaut()[:64, 160:288].copy()).movedim(-1, 0) / 127.5 - 1
    tokenizer = DQVAE(
        PatchEncoder([4, 8], width=32, blocks=1, channels=32),
        EntropyGate({4: 0.5, 8: 0.5}, [1.5]),
        EMAVectorQuantizer(64, 8),
        PixelShuffleDecoder(4, channels=32, width=32, blocks=1),
    )
    images = torch.stack([photograph[:, :, :64], photograph[:, :, 64:]])
    tokenizer(images)
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    figures = measure_adaptation(tokenizer, [images], regions=20)
    assert figures.regions == 40 and figures.values["gain_share"].value <= 1
    assert tokenizer.training and all(part.training for part in tokenizer.modules())
    assert all(torch.equal(state[name], value) for name, value in tokenizer.state_dict().items())
    assert adaptive(tokenizer)


def test_the_alternatives_of_a_real_tokenizer_hold_its_own_codes() -> None:
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    tokenizer = DQVAE(
        PatchEncoder([4, 8, 16], width=32, blocks=1, channels=32),
        EntropyGate({4: 0.3, 8: 0.3, 16: 0.4}, [2.5, 2.9]),
        EMAVectorQuantizer(64, 8),
        PixelShuffleDecoder(4, channels=32, width=32, blocks=1),
    )
    found = tokenizer.alternatives(images)
    codes = tokenizer.encode(images)
    assert torch.equal(found.decision.grains, codes.grains)
    assert torch.equal(found.mixture(codes.grains), codes.to_code_map(tokenizer.spec))
    assert found.code_maps.shape == (3, 2, 8, 12)


def test_one_granularity_leaves_nothing_to_adapt() -> None:
    tokenizer = DQVAE(
        PatchEncoder([8], width=32, blocks=1, channels=32),
        FixedGate(),
        EMAVectorQuantizer(64, 8),
        PixelShuffleDecoder(8, channels=32, width=32, blocks=1),
    )
    assert not adaptive(tokenizer)
    assert measure_adaptation(tokenizer, [torch.rand(1, 3, 16, 16)]).values == {}


def test_without_images_it_says_so() -> None:
    with pytest.raises(UserError, match="no images to measure"):
        measure_adaptation(Known(torch.zeros(1, 1, 1, dtype=torch.long)), [])


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [(300, 200, (4, 3, 64, 64)), (64, 100, (1, 3, 64, 64)), (30, 300, (2, 3, 24, 64)), (7, 300, (0, 3, 8, 8))],
)
def test_crops_lie_evenly_in_the_picture(height, width, shape) -> None:
    rows = torch.arange(height, dtype=torch.float32)[:, None] / 2
    picture = rows.expand(3, height, width).byte()
    crops = picture_crops(picture, 8)
    assert tuple(crops.shape) == shape
    if shape == (4, 3, 64, 64):
        middles = (crops[:, 0, :, 0].mean(dim=1) + 1) * 127.5 * 2
        assert middles.tolist() == pytest.approx([75, 75, 225, 225], abs=1.5)
