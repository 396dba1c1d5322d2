"""Measuring a tokenizer, on one whose codes and pictures are known."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
import skimage.data
import torch
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation.coders import TokenizerCoder
from vltok.evaluation.measurement import Measurement
from vltok.evaluation.reconstruction import measure_reconstruction, pooled_psnr
from vltok.evaluation.values import Value
from vltok.interfaces import Tokenizer, TokenizerOutput
from vltok.losses.perceptual import LPIPS, each_distance
from vltok.measures.regions import local_contrast


@dataclass(frozen=True)
class Batch:
    images: Tensor


class Known(Tokenizer):
    """Regions of 8 pixels with more contrast than the threshold get 4 codes; each pixel is off by one level."""

    def __init__(self, threshold: float = 0.1, gridded: bool = True, error: float = 1 / 127.5) -> None:
        super().__init__()
        self.error = error
        self.threshold = threshold
        self.frozen = nn.BatchNorm2d(3).eval()
        self.seen: list[tuple[bool, ...]] = []
        self._spec = CodeSpec(50, (8, 4)) if gridded else CodeSpec(50, max_length=9)

    @property
    def spec(self) -> CodeSpec:
        return self._spec

    @property
    def divisor(self) -> int:
        return 8

    def encode_batch(self, images: Tensor) -> Codes:
        imprecise = torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32
        self.seen.append((self.training, torch.is_grad_enabled(), *imprecise))
        self.images = images
        if not self.spec.gridded:
            lengths = torch.arange(1, len(images) + 1)
            return Codes(torch.zeros(int(lengths.sum()), dtype=torch.long), lengths)
        grains = (local_contrast(images, 8) > self.threshold).long()
        cells = grains.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return Codes.from_code_map(cells, grains, self.spec)  # codes 0 and 1 alone

    def decode_batch(self, codes: Codes) -> Tensor:
        return self.images + self.error

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode(images)
        return TokenizerOutput(self.decode(codes), codes, {})


def batches() -> Iterator[Batch]:
    """Crops of a photograph, the last batch smaller and of another size; no pixel is at the end of the range."""
    picture = torch.from_numpy(skimage.data.chelsea().copy()).movedim(-1, 0).clamp(1, 254).float() / 127.5 - 1
    yield Batch(torch.stack([picture[:, :64, :64], picture[:, 100:164, 100:164]]))
    yield Batch(picture[None, :, 200:232, 40:104])


def measured(tokenizer: Tokenizer, of: Iterable[Batch] | None = None) -> Measurement:
    batched = batches() if of is None else of
    return measure_reconstruction(TokenizerCoder(tokenizer, "cpu"), tokenizer.spec, batched).together()


def test_every_figure_is_that_of_the_definition() -> None:
    found = measured(Known().eval())
    contrasts = [local_contrast(batch.images, 8).flatten(1) for batch in batches()]
    fine = [part > 0.1 for part in contrasts]
    lengths = torch.cat([(1 + 3 * part).sum(1) for part in fine]).double()
    share = torch.cat([part.flatten() for part in fine]).double().mean().item()
    assert 0.2 < share < 0.8, "the photograph should have both"
    figures = {name: value.value for name, value in found.values.items()}
    assert found.images == 3
    assert figures["psnr"] == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert figures["codebook_usage"] == 2 / 50
    assert figures["length"] == lengths.mean().item()
    assert figures["length_std"] == pytest.approx(lengths.numpy().std())
    assert found.codes["ratios"] == pytest.approx({"8": 1 - share, "4": share})
    # ranks of a threshold: 1 only without ties, but high
    assert 0.8 < figures["contrast_correlation"] <= 1


def test_how_many_flat_regions_have_the_finest_codes() -> None:
    """Four regions deviate by 0, 1, 1.5 and 2.5 levels: three are flat, of which one is above the threshold."""
    levels = torch.full((8, 32), 100.0)
    levels[:, ::2] += torch.tensor([0.0, 2.0, 3.0, 5.0]).repeat_interleave(4)
    picture = (levels / 127.5 - 1).expand(1, 3, -1, -1)
    found = measured(Known(threshold=1.2 / 127.5).eval(), [Batch(picture)])
    assert found.values["flat_finest_share"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [-1.0, 9.0])
def test_without_ranks_there_is_no_correlation(threshold: float) -> None:
    found = measured(Known(threshold).eval())
    assert "contrast_correlation" not in found.values
    assert sorted(found.codes["ratios"].values()) == [0, 1]
    assert found.values["length_std"].value > 0  # the pictures differ in size


def test_a_tokenizer_without_a_grid() -> None:
    found = measured(Known(gridded=False).eval())
    assert found.codes["ratios"] == {} and "contrast_correlation" not in found.values
    assert found.values["length"].value == pytest.approx((1 + 2 + 1) / 3)


def test_it_computes_in_float32_without_gradients() -> None:
    tokenizer = Known().eval()
    with torch.autocast("cpu", torch.bfloat16):
        measured(tokenizer)
    assert tokenizer.seen == [(False, False, False, False)] * 2


@pytest.mark.parametrize(
    ("tokenizer", "of", "message"),
    [
        (Known(), [Batch(torch.zeros(1, 3, 12, 12))], "do not divide"),
        (Known(), [], "no picture to measure"),
        (Known(error=math.nan), None, "NaN or infinite pixels"),
    ],
)
def test_what_cannot_be_measured(tokenizer: Tokenizer, of: list[Batch] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(tokenizer, of)


def test_decibels_fall_as_errors_rise() -> None:
    found = pooled_psnr(Value(0.01, 0.001, 0.1))
    assert (found.value, found.low, found.high) == pytest.approx((20, 10, 30))
    assert pooled_psnr(Value(0.0)).to_json() == {"value": None}


def test_each_image_has_its_own_perceptual_distance() -> None:
    """LPIPS itself agrees with torchmetrics': tests/losses/test_perceptual.py."""
    lpips = LPIPS()
    torch.manual_seed(0)
    lpips.slices.extend([torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Conv2d(4, 4, 3)])
    lpips.heads.extend(torch.nn.Parameter(torch.rand(4)) for _ in range(2))
    images = next(batches()).images
    coded = (images + 0.1 * torch.randn(images.shape)).clamp(-1, 1)
    with torch.no_grad():
        found = each_distance(lpips)(coded, images)
        each = [lpips(coded[[place]], images[[place]]) for place in range(2)]
    assert torch.allclose(found, torch.stack(each), atol=1e-6) and found.min() > 0
