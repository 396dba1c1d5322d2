"""How well a tokenizer reconstructs images, and what it spends on them."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from scipy.stats import spearmanr
from torch import Tensor

from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.measures.contrast import local_contrast
from vltok.measures.pixels import psnr
from vltok.nn.modes import evaluating
from vltok.nn.precision import full_float32


@runtime_checkable
class HasImages(Protocol):
    """A batch, as the data modules give it."""

    images: Tensor


@dataclass(frozen=True)
class ReconstructionFigures:
    """What `measure` found.

    Attributes:
        images: How many images were measured.
        psnr: Mean over the images of their peak signal-to-noise ratio in dB, of reconstructions that are clamped and
            rounded to 8 bits, as `vltok.measures.pixels.psnr` says.
        codebook_usage: The share of the codebook that occurs among the codes of all images.
        mean_length: The mean code length.
        length_std: The standard deviation of the code lengths over the images (divided by n), in codes.
        ratios: The share of regions of each granularity, by factor, from coarse to fine; None without a grid.
        contrast_correlation: Spearman's rank correlation, over all regions, of granularity (higher is finer) with
            local contrast, the standard deviation of luminance in the region. None without a grid, or where either
            is the same everywhere, so that there is no rank.
    """

    images: int
    psnr: float
    codebook_usage: float
    mean_length: float
    length_std: float
    ratios: dict[int, float] | None
    contrast_correlation: float | None

    def to_dict(self) -> dict[str, Any]:
        """The figures for a JSON file: what is not a finite number becomes None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def measure(
    tokenizer: Tokenizer, batches: Iterable[HasImages], device: torch.device | str = "cpu"
) -> ReconstructionFigures:
    """Measure a tokenizer on images, in evaluation mode, in float32, one batch in memory at a time.

    Args:
        tokenizer: It is moved to `device`, and keeps its training or evaluation mode.
        batches: Whose `images` are `[b 3 H W]` in [-1, 1]; sizes may differ between batches.
        device: Where to compute.

    Raises:
        UserError: There is no image, or the tokenizer does not take their size.
    """
    device = torch.device(device)
    spec = tokenizer.to(device).spec
    used = torch.zeros(spec.codebook_size, dtype=torch.bool, device=device)
    ratios, lengths, grains, contrasts = [], [], [], []
    with evaluating(tokenizer), full_float32(), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for batch in batches:
            images = batch.images.to(device, torch.float32)
            codes = tokenizer.encode(images)
            ratios.append(psnr(tokenizer.decode(codes), images))
            used[codes.ids] = True
            lengths.append(codes.lengths)
            if spec.gridded:
                # a byte and a float for each region are all that is kept of an image
                grains.append(codes.require_grains().flatten().to(torch.uint8))
                contrasts.append(local_contrast(images, spec.factors[0]).flatten())
    if not sum(len(part) for part in lengths):
        raise UserError("there are no images to measure the tokenizer on")
    length = torch.cat(lengths).cpu().double()
    counts = torch.cat(grains).int().bincount(minlength=spec.granularities).tolist() if spec.gridded else []
    return ReconstructionFigures(
        images=length.numel(),
        psnr=torch.cat(ratios).cpu().double().mean().item(),
        codebook_usage=used.sum().item() / spec.codebook_size,
        mean_length=length.mean().item(),
        length_std=length.std(correction=0).item(),
        ratios={factor: n / sum(counts) for factor, n in zip(spec.factors, counts, strict=True)} or None,
        contrast_correlation=_rank_correlation(torch.cat(grains), torch.cat(contrasts)) if spec.gridded else None,
    )


def _rank_correlation(first: Tensor, second: Tensor) -> float | None:
    if any(values.min() == values.max() for values in (first, second)):
        return None
    return float(spearmanr(first.cpu().numpy(), second.cpu().numpy()).statistic)
