"""Measuring a tokenizer, on one whose codes and pictures are known."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import skimage.data
import torch
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec, Ratios
from vltok.errors import UserError
from vltok.evaluation.reconstruction import measure
from vltok.interfaces import Tokenizer, TokenizerOutput
from vltok.measures.contrast import local_contrast


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

    @property
    def last_layer(self) -> Tensor:
        return self.frozen.weight

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

    def decode(self, codes: Codes) -> Tensor:
        return self.images + self.error

    def forward(self, images: Tensor) -> TokenizerOutput:
        codes = self.encode(images)
        return TokenizerOutput(self.decode(codes), codes, {})

    def expected_length(self, height: int, width: int) -> float | None:
        return None

    @property
    def target_ratios(self) -> Ratios | None:
        return None


def batches() -> Iterator[Batch]:
    """Crops of a photograph, the last batch smaller and of another size; no pixel is at the end of the range."""
    picture = torch.from_numpy(skimage.data.chelsea().copy()).movedim(-1, 0).clamp(1, 254).float() / 127.5 - 1
    yield Batch(torch.stack([picture[:, :64, :64], picture[:, 100:164, 100:164]]))
    yield Batch(picture[None, :, 200:232, 40:104])


def test_every_figure_is_that_of_the_definition() -> None:
    figures = measure(Known(), batches())
    contrasts = [local_contrast(batch.images, 8).flatten(1) for batch in batches()]
    fine = [part > 0.1 for part in contrasts]
    lengths = torch.cat([(1 + 3 * part).sum(1) for part in fine]).double()
    share = torch.cat([part.flatten() for part in fine]).double().mean().item()
    assert 0.2 < share < 0.8, "the photograph should have both"
    assert figures.images == 3
    assert figures.psnr == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert figures.codebook_usage == 2 / 50
    assert figures.mean_length == lengths.mean().item()
    assert figures.length_std == pytest.approx(lengths.numpy().std())
    assert figures.ratios == pytest.approx({8: 1 - share, 4: share})
    # ranks of a threshold: 1 only without ties, but high
    assert 0.8 < figures.contrast_correlation <= 1


@pytest.mark.parametrize("threshold", [-1.0, 9.0])
def test_without_ranks_there_is_no_correlation(threshold: float) -> None:
    figures = measure(Known(threshold), batches())
    assert figures.contrast_correlation is None
    assert sorted(figures.ratios.values()) == [0, 1]
    assert figures.length_std > 0  # the pictures differ in size


def test_a_tokenizer_without_a_grid() -> None:
    figures = measure(Known(gridded=False), batches())
    assert (figures.ratios, figures.contrast_correlation) == (None, None)
    assert figures.mean_length == pytest.approx((1 + 2 + 1) / 3)


def test_it_computes_in_evaluation_and_float32_and_restores_every_mode() -> None:
    tokenizer = Known().train()
    tokenizer.frozen.eval()
    with torch.autocast("cpu", torch.bfloat16):
        measure(tokenizer, batches())
    assert tokenizer.seen == [(False, False, False, False)] * 2
    assert tokenizer.training and not tokenizer.frozen.training


def test_modes_are_restored_after_an_error() -> None:
    tokenizer = Known().train()
    with pytest.raises(UserError, match="do not divide"):
        measure(tokenizer, [Batch(torch.zeros(1, 3, 12, 12))])
    assert tokenizer.training


def test_no_images() -> None:
    with pytest.raises(UserError, match="no images to measure"):
        measure(Known(), [])


def test_figures_go_into_json() -> None:
    written = json.loads(json.dumps(measure(Known(), batches()).to_dict(), allow_nan=False))
    assert written["images"] == 3 and set(written["ratios"]) == {"8", "4"}


def test_nan_is_said_and_stays_out_of_json() -> None:
    figures = measure(Known(error=math.nan), batches())
    assert math.isnan(figures.psnr)
    assert figures.to_dict()["psnr"] is None
