"""Whether the codes went where they help: a gate may meet its budget and still choose at random.

For each region the other granularities are decoded, while all other regions stay as the gate chose them (for images of
R regions and K granularities, R·(K − 1) decodings each). The *error* of a region is its squared error, summed over
pixels and channels, of pixel values in [-1, 1]; the *gain* of a step is how much the region's own error falls when it
alone goes from one granularity to the next finer one.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.stats import spearmanr
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation.reconstruction import HasImages
from vltok.interfaces import Adaptive, Alternatives, Tokenizer
from vltok.nn.modes import evaluating
from vltok.nn.precision import full_float32
from vltok.nn.regions import region_errors
from vltok.pictures.transforms import to_unit_range

#: How many pixels are decoded at once; a single image may have more.
MOST_PIXELS = 2**19


@dataclass(frozen=True)
class AdaptationFigures:
    """What `measure_adaptation` found. Rank correlations are Spearman's, over all measured regions.

    A figure is None where it is not defined: with one granularity, or where all regions have the same one.

    Attributes:
        images: How many images were measured.
        regions: How many regions of them.
        gain_share: The gain that the gate's choice obtains over all regions together, relative to what is possible at
            its ratios: 0 is the expectation of random places, 1 the best choice.
        gain_correlation: Of granularity (higher is finer) with the gain of going from the coarsest to the finest.
        error_correlation: Of granularity with the region's error when all regions have the coarsest granularity.
        margin_gain_correlation: Of the gate's margin with that gain. The margin is the expectation of granularity under
            the softmax of the logits; for two granularities it orders the regions as the difference of the logits does.
            None where the gate has no logits.
        margin_error_correlation: Of the margin with that error.
        step_gain_correlations: Of granularity with the gain of each step, by the factor that the step leads to.
    """

    images: int
    regions: int
    gain_share: float | None
    gain_correlation: float | None
    error_correlation: float | None
    margin_gain_correlation: float | None
    margin_error_correlation: float | None
    step_gain_correlations: dict[int, float | None]

    def to_dict(self) -> dict[str, Any]:
        """The figures for a JSON file."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Regions:
    """Measured regions, r of them.

    Attributes:
        errors: Of each at each granularity, when it alone has it.
        coarse: Its error when all regions have the coarsest granularity.
        grains: What the gate chose.
        margins: The expected granularity by the gate's logits, or None.
    """

    errors: Float[Tensor, "r k"]
    coarse: Float[Tensor, " r"]
    grains: Int[Tensor, " r"]
    margins: Float[Tensor, " r"] | None


def adaptation_line(figures: Mapping[str, Any]) -> str:
    """Figures of adaptation as people read them: `AdaptationFigures.to_dict`, or what a file kept of it."""

    def shown(value: float | None, form: str) -> str:
        return "none" if value is None else format(value, form)

    return (
        f"{shown(figures['gain_share'], '.0%')} of the best gain; rank correlation of granularity with gain "
        f"{shown(figures['gain_correlation'], '.3f')}, with coarse error {shown(figures['error_correlation'], '.3f')}"
    )


def adaptive(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer's adaptation can be measured."""
    return isinstance(tokenizer, Adaptive) and tokenizer.spec.granularities > 1


def measure_adaptation(
    tokenizer: Tokenizer,
    batches: Iterable[HasImages],
    device: torch.device | str = "cpu",
    images: int = 64,
    regions: int = 64,
) -> AdaptationFigures:
    """Measure where a tokenizer's codes went, in evaluation mode, in float32; memory is bounded.

    Args:
        tokenizer: One that is `adaptive`. It is moved to `device`, and keeps its training or evaluation mode.
        batches: Whose `images` are `[b 3 H W]` in [-1, 1]; sizes may differ between batches.
        device: Where to compute.
        images: At most so many images are measured, the first ones.
        regions: At most so many regions of each, drawn at random but always the same.

    Raises:
        UserError: There is no image, the tokenizer does not take their size, or its adaptation cannot be measured.
    """
    if not isinstance(tokenizer, Adaptive):
        raise UserError(f"{type(tokenizer).__name__} does not say what it could have chosen: it is not Adaptive")
    device = torch.device(device)
    tokenizer.to(device)
    measured, count = [], 0
    with evaluating(tokenizer), full_float32(), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for batch in _first(batches, images):
            measured.append(_measured(tokenizer, batch.to(device, torch.float32), regions))
            count += len(batch)
    if not count:
        raise UserError("there are no images to measure the tokenizer's adaptation on")
    margins = [part.margins for part in measured]
    return _figures(
        count,
        torch.cat([part.errors for part in measured]).cpu().double().numpy(),
        torch.cat([part.coarse for part in measured]).cpu().numpy(),
        torch.cat([part.grains for part in measured]).cpu().numpy(),
        None if None in margins else torch.cat(margins).cpu().numpy(),
        tokenizer.spec,
    )


@dataclass(frozen=True, eq=False)
class Crops:
    """Crops of a picture, on which its adaptation is measured.

    Attributes:
        images: In [-1, 1].
    """

    images: Float[Tensor, "b 3 H W"]

    @classmethod
    def of(cls, picture: UInt8[Tensor, "3 H W"], divisor: int, most: int = 8) -> "Crops":
        """Up to four crops of at most `most` × `most` regions, spread evenly; none of a picture below one region.

        Args:
            picture: Its pixels.
            divisor: The side of a region in pixels.
            most: Regions along a side of a crop.
        """
        (height, tops), (width, lefts) = (_spread(size, divisor, most) for size in picture.shape[1:])
        crops = [picture[:, top : top + height, left : left + width] for top in tops for left in lefts]
        return cls(to_unit_range(torch.stack(crops) if crops else picture.new_empty(0, 3, divisor, divisor)))


def _spread(size: int, divisor: int, most: int) -> tuple[int, list[int]]:
    """How long crops are along a side of a picture, and where they start: in the middle of each half, if two fit."""
    side = min(size // divisor, most) * divisor
    parts = min(size // side, 2) if side else 0
    return side, [(size * (2 * part + 1) // parts - side) // 2 for part in range(parts)]


def _first(batches: Iterable[HasImages], count: int) -> Iterator[Float[Tensor, "b 3 H W"]]:
    """The first images."""
    for batch in batches:
        if count <= 0:
            return
        if len(batch.images):  # a picture that is smaller than a region has no crops
            yield batch.images[:count]
        count -= len(batch.images)


def _measured(tokenizer: Tokenizer, images: Float[Tensor, "b 3 H W"], most: int) -> _Regions:
    """The errors of some regions of a batch at all granularities."""
    spec = tokenizer.spec
    alternatives = tokenizer.alternatives(images)
    grains = alternatives.decision.grains
    batch, (height, width) = len(grains), grains.shape[1:]
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(batch, height * width, generator=generator).argsort(dim=1)[:, :most].sort(dim=1).values
    chosen = order.to(grains.device)

    def errors_at(grains: Tensor, of: Tensor) -> Float[Tensor, "n h w"]:
        part = Alternatives(alternatives.decision, alternatives.code_maps[:, of])
        codes = Codes.from_code_map(part.mixture(grains), grains, spec)
        return region_errors(tokenizer.decode(codes), images[of], tokenizer.divisor)

    every = torch.arange(batch, device=grains.device)
    at_chosen = errors_at(grains, every).flatten(1).gather(1, chosen)
    at_coarsest = errors_at(torch.zeros_like(grains), every).flatten(1).gather(1, chosen)
    own = grains.flatten(1).gather(1, chosen)
    # every other granularity of each region: K − 1 images with one region changed
    image, place, other = torch.meshgrid(
        every,
        torch.arange(chosen.shape[1], device=grains.device),
        torch.arange(1, spec.granularities, device=grains.device),
        indexing="ij",
    )
    image, place = image.flatten(), chosen[image, place].flatten()
    granularity = (grains.flatten(1)[image, place] + other.flatten()) % spec.granularities
    found = []
    for part in torch.arange(len(image), device=grains.device).split(max(1, MOST_PIXELS // images[0, 0].numel())):
        changed = grains.flatten(1)[image[part]].scatter(1, place[part, None], granularity[part, None])
        errors = errors_at(changed.view(-1, height, width), image[part])
        found.append(errors.flatten(1).gather(1, place[part, None])[:, 0])
    # put each error at its granularity
    table = torch.cat([at_chosen.flatten()[:, None], torch.cat(found).view(own.numel(), -1)], dim=1)
    at = (own.flatten()[:, None] + torch.arange(spec.granularities, device=grains.device)) % spec.granularities
    logits = alternatives.decision.logits
    margins = None
    if logits is not None:
        levels = torch.arange(spec.granularities, device=logits.device, dtype=torch.float64)[:, None, None]
        margins = (logits.double().softmax(dim=1) * levels).sum(dim=1).flatten(1).gather(1, chosen).flatten()
    return _Regions(torch.empty_like(table).scatter(1, at, table), at_coarsest.flatten(), own.flatten(), margins)


def _figures(
    images: int,
    errors: np.ndarray,
    coarse: np.ndarray,
    grains: np.ndarray,
    margins: np.ndarray | None,
    spec: CodeSpec,
) -> AdaptationFigures:
    gains = errors[:, 0] - errors[:, -1]
    return AdaptationFigures(
        images=images,
        regions=len(grains),
        gain_share=gain_share(errors, grains),
        gain_correlation=_rank_correlation(grains, gains),
        error_correlation=_rank_correlation(grains, coarse),
        margin_gain_correlation=_rank_correlation(margins, gains),
        margin_error_correlation=_rank_correlation(margins, coarse),
        step_gain_correlations={
            factor: _rank_correlation(grains, before - after)
            for factor, (before, after) in zip(spec.factors[1:], itertools.pairwise(errors.T), strict=True)
        },
    )


def gain_share(errors: np.ndarray, grains: np.ndarray) -> float | None:
    """The share of the best possible gain that a choice obtains, above the expectation of random places.

    All three have the same number of regions of each granularity. None where they cannot differ.

    Args:
        errors: Of each region at each granularity, `[r k]`.
        grains: The granularity of each region, `[r]`.
    """
    counts = np.bincount(grains, minlength=errors.shape[1])
    random = float(errors.mean(axis=0) @ counts)
    obtained = float(errors[np.arange(len(grains)), grains].sum())
    best = float(errors[np.arange(len(grains)), best_choice(errors, counts)].sum())
    return (random - obtained) / (random - best) if random > best else None


def best_choice(errors: np.ndarray, counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """The choice of least total error of which each granularity has a given number of regions.

    A transport problem, solved by cancelling cycles: as long as it helps that one region goes from granularity a to b,
    one from b to c, … and one back to a, the best such exchange is made. Where none helps, the choice is the best.

    Args:
        errors: Of each region at each granularity, `[r k]`.
        counts: How many regions get each granularity, `[k]`; they sum to r.
    """
    regions, granularities = errors.shape
    choice = np.empty(regions, dtype=np.int64)
    # to begin with, the finest go where the whole way gains most: for two granularities that is the best
    choice[np.argsort(errors[:, 0] - errors[:, -1])] = np.repeat(np.arange(granularities), counts)
    cycles = [
        [*zip(places, (*places[1:], places[0]), strict=True)]
        for length in range(2, granularities + 1)
        for places in itertools.permutations(range(granularities), length)
        if places[0] == min(places)
    ]
    least = 1e-12 * max(float(np.abs(errors).max()), 1e-300)  # what rounding gains counts for nothing
    while cycles:
        change = errors - errors[np.arange(regions), choice][:, None]
        # for each pair of granularities the region that goes best from the one to the other, and what that costs
        here = [np.where((choice == k)[:, None], change, np.inf) for k in range(granularities)]
        movers = np.stack([table.argmin(axis=0) for table in here])
        costs = np.stack([table.min(axis=0) for table in here])
        cost, cycle = min((sum(costs[move] for move in cycle), cycle) for cycle in cycles)
        if cost >= -least:
            break
        for before, after in cycle:
            choice[movers[before, after]] = after
    return choice


def _rank_correlation(first: np.ndarray | None, second: np.ndarray) -> float | None:
    if first is None or not np.ptp(first) or not np.ptp(second):
        return None
    return float(spearmanr(first, second).statistic)
