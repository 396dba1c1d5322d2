"""Whether the codes went where they help: a gate may meet its budget and still choose at random.

For each region the other granularities are decoded, while all other regions stay as the gate chose them (for images of
R regions and K granularities, R·(K − 1) decodings each). The *error* of a region is its squared error, summed over
pixels and channels, of pixel values in [-1, 1]; the *gain* of a step is how much the region's own error falls when it
alone goes from one granularity to the next finer one.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.codes import Codes
from vltok.devices import widest
from vltok.errors import UserError
from vltok.evaluation.values import Value
from vltok.interfaces import Adaptive, Alternatives, Tokenizer
from vltok.measures.gain import gain_share
from vltok.measures.pixels import to_unit_range
from vltok.measures.ranks import rank_correlation
from vltok.measures.regions import region_errors
from vltok.nn.modes import evaluating
from vltok.nn.precision import computing

#: How many pixels are decoded at once; a single image may have more.
MOST_PIXELS = 2**19


@dataclass(frozen=True)
class Adaptation:
    """What `measure_adaptation` found. Rank correlations are Spearman's, over all measured regions.

    Attributes:
        images: How many images were measured.
        regions: How many regions of them.
        values: The figures; what is not defined is left out, as where all regions have the same granularity.
            `gain_share`: The gain that the gate's choice obtains over all regions together, relative to what is
            possible at its ratios: 0 is the expectation of random places, 1 the best choice.
            `gain_correlation`: Of granularity (higher is finer) with the gain of going from the coarsest to the finest.
            `coarse_error_correlation`: Of granularity with the region's error when all regions have the coarsest one.
            `margin_gain_correlation`: Of the gate's margin with that gain. The margin is the expectation of granularity
            under the softmax of the logits; for two granularities it orders the regions as the difference of the logits
            does. `margin_error_correlation`: Of the margin with that error.
            `step_gain_correlation_F`: Of granularity with the gain of the step to factor F.
    """

    images: int
    regions: int
    values: dict[str, Value]


def adaptive(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer's adaptation can be measured."""
    return isinstance(tokenizer, Adaptive) and tokenizer.spec.granularities > 1


def measure_adaptation(
    tokenizer: Tokenizer,
    batches: Iterable[Float[Tensor, "_ 3 _ _"]],
    device: torch.device | str = "cpu",
    images: int = 64,
    regions: int = 64,
) -> Adaptation:
    """Measure where a tokenizer's codes went, in evaluation mode, in float32; memory is bounded.

    Args:
        tokenizer: One that is `adaptive`. It is moved to `device`, and keeps its training or evaluation mode.
        batches: Of images in [-1, 1], `[b 3 H W]`; sizes may differ between batches.
        device: Where to compute.
        images: At most so many images are measured, the first ones.
        regions: At most so many regions of each, drawn at random but always the same.

    Raises:
        UserError: There is no image, the tokenizer does not take their size, or its adaptation cannot be measured.
    """
    if not isinstance(tokenizer, Adaptive):
        raise UserError(f"{type(tokenizer).__name__} does not say what it could have chosen: it is not Adaptive")
    tokenizer.to(device)
    measured: list[dict[str, Tensor]] = []
    count = 0
    with evaluating(tokenizer), computing(device), torch.inference_mode():
        for batch in _first(batches, images):
            shown = batch.to(device, torch.float32)
            measured.append(_measured(tokenizer, tokenizer.alternatives(shown), shown, regions))
            count += len(batch)
    if not count:
        raise UserError("there are no images to measure the tokenizer's adaptation on")
    found = {name: torch.cat([part[name] for part in measured]).cpu() for name in measured[0]}
    errors, coarse, grains = found["errors"], found["coarse"], found["grains"]
    pairs = {
        "gain_correlation": (grains, errors[:, 0] - errors[:, -1]),
        "coarse_error_correlation": (grains, coarse),
        **{
            f"step_gain_correlation_{factor}": (grains, before - after)
            for factor, (before, after) in zip(
                tokenizer.spec.factors[1:], itertools.pairwise(errors.unbind(dim=1)), strict=True
            )
        },
    }
    if "margins" in found:
        pairs["margin_gain_correlation"] = (found["margins"], pairs["gain_correlation"][1])
        pairs["margin_error_correlation"] = (found["margins"], coarse)
    figures = {"gain_share": gain_share(errors.double().numpy(), grains.numpy())}
    figures |= {name: rank_correlation(*pair) for name, pair in pairs.items()}
    values = {name: Value(figure) for name, figure in figures.items() if figure is not None}
    return Adaptation(count, len(grains), values)


def picture_crops(picture: UInt8[Tensor, "3 H W"], divisor: int, most: int = 8) -> Float[Tensor, "b 3 _ _"]:
    """Up to four crops of at most `most` × `most` regions of `divisor` pixels a side, spread evenly over a picture.

    They are in [-1, 1]. There is none of a picture below one region.
    """
    (height, tops), (width, lefts) = (_spread(size, divisor, most) for size in picture.shape[1:])
    crops = [picture[:, top : top + height, left : left + width] for top in tops for left in lefts]
    return to_unit_range(torch.stack(crops) if crops else picture.new_empty(0, 3, divisor, divisor))


def _spread(size: int, divisor: int, most: int) -> tuple[int, list[int]]:
    """How long crops are along a side of a picture, and where they start: in the middle of each half, if two fit."""
    side = min(size // divisor, most) * divisor
    parts = min(size // side, 2) if side else 0
    return side, [(size * (2 * part + 1) // parts - side) // 2 for part in range(parts)]


def _first(batches: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """The first images."""
    for batch in batches:
        if count <= 0:
            return
        if len(batch):  # a picture that is smaller than a region has no crops
            yield batch[:count]
        count -= len(batch)


def _measured(
    tokenizer: Tokenizer, alternatives: Alternatives, images: Float[Tensor, "b 3 H W"], most: int
) -> dict[str, Tensor]:
    """What is measured of r regions of a batch.

    Returns:
        `errors`, `[r k]`: of each region at each granularity, when it alone has it. `coarse`, `[r]`: its error when all
        regions have the coarsest one. `grains`, `[r]`: what the gate chose. `margins`, `[r]`: the expected granularity
        by the gate's logits, where it has some.
    """
    spec = tokenizer.spec
    grains = alternatives.decision.grains
    batch, (height, width) = len(grains), grains.shape[1:]
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(batch, height * width, generator=generator).argsort(dim=1)[:, :most].sort(dim=1).values
    chosen = order.to(grains.device)

    def errors_at(grains: Tensor, of: Tensor) -> Float[Tensor, "n h w"]:
        part = Alternatives(alternatives.decision, alternatives.code_maps[:, of])
        codes = Codes.from_code_map(part.mixture(grains), grains, spec)
        return region_errors(tokenizer.decode(codes), images[of], spec.factors[0])

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
    errors_rk = torch.empty_like(table).scatter(1, at, table)
    measured = {"errors": errors_rk, "coarse": at_coarsest.flatten(), "grains": own.flatten()}
    logits = alternatives.decision.logits
    if logits is not None:
        levels = torch.arange(spec.granularities, device=logits.device, dtype=widest(logits.device))[:, None, None]
        margins = (logits.to(levels.dtype).softmax(dim=1) * levels).sum(dim=1)
        measured["margins"] = margins.flatten(1).gather(1, chosen).flatten()
    return measured
