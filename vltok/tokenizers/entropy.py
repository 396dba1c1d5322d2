"""The entropy of image regions, and thresholds that part them in given shares."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vltok.devices import widest
from vltok.errors import UserError
from vltok.processes import sum_over_processes

#: Bins of luminance between which the entropy tells.
BINS = 32
#: The standard deviation of a bin's Gaussian.
BIN_WIDTH = 0.01
#: All densities are multiplied by exp(LIFT): that cancels in the entropy, and keeps what matters above 1e-38.
LIFT = 40.0
#: The largest entropy, in nats.
LARGEST = math.log(BINS)
#: Thresholds are read from a histogram of so many steps, which resolves 3e-6 nats in 8 MiB.
STEPS = 2**20


def entropy_map(
    images: Float[Tensor, "b 3 H W"], patch: int, bins: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, "b h w"]:
    """The entropy of luminance in each patch of images, in nats, from 0 (flat) to ln 32.

    Each pixel belongs to the bins near its luminance by a Gaussian; the entropy is that of their mean over the patch.
    As in the original implementation (https://github.com/CrossmodalGroup/DynamicVectorQuantization), with its epsilon
    of 1e-40 but without its need for subnormal numbers.

    Args:
        images: In [-1, 1].
        patch: The side of a patch in pixels.
        bins: The lowest and the highest of the 32 evenly spaced bins of luminance.
    """
    red, green, blue = images.float().split(1, dim=1)
    scale = 1 / (BIN_WIDTH * math.sqrt(2))
    luminance = (0.2989 * red + 0.5870 * green + 0.1140 * blue) * scale
    # bin by bin, since all at once would take 32 times the memory; clamped, since subnormal results are slow
    belonging = torch.cat(
        [
            F.avg_pool2d((LIFT - (luminance - center * scale).square()).clamp_min(-87).exp(), patch)
            for center in torch.linspace(*bins, BINS).tolist()
        ],
        dim=1,
    )
    # luminance far from every bin belongs to none: the epsilon makes all shares 0 there, and so the entropy
    shares = belonging / (belonging.sum(dim=1, keepdim=True) + 1e-40 * math.exp(LIFT))
    return torch.special.entr(shares).sum(dim=1)


def entropy_histogram(entropies: Float[Tensor, "*shape"]) -> Int[Tensor, " steps"]:
    """How many entropies lie in each step: i counts those in ((i − 1)·w, i·w], with w = ln 32 / `STEPS`."""
    steps = (entropies.to(widest(entropies.device)) * (STEPS / LARGEST)).ceil().clamp(0, STEPS).long().flatten()
    return torch.zeros(STEPS + 1, dtype=torch.long, device=steps.device).index_add_(0, steps, torch.ones_like(steps))


def thresholds_of(histogram: Int[Tensor, " steps"], shares: Sequence[float]) -> list[float]:
    """The thresholds, ascending, that part a histogram's entropies in given shares, from low to high.

    Equal entropies stand on the same side of a threshold, so that many of them (black bars, say) can keep a share from
    being met; the nearest possible share is taken.

    Raises:
        UserError: The histogram is empty.
    """
    histogram = histogram.cpu()  # not every device has double precision
    total = int(histogram.sum())
    if not total:
        raise UserError("there are no images to calibrate the gate on; check that the data is not empty")
    filled = histogram.nonzero().flatten()
    below = F.pad(histogram[filled].cumsum(0), (1, 0)).double() / total  # the share below each possible cut
    edges = filled.double() * (LARGEST / STEPS)
    # a cut lies in the middle between filled steps, as far as possible from any region's entropy
    gaps = (edges[:-1] + (edges[1:] - LARGEST / STEPS)) / 2
    cuts = F.pad(F.pad(gaps, (1, 0), value=-math.inf), (0, 1), value=math.inf)
    targets = torch.tensor(shares, dtype=torch.double, device=below.device).cumsum(0)[:-1]
    return cuts[(below[:, None] - targets).abs().argmin(dim=0)].tolist()


def calibrated_thresholds(
    batches: Iterable[Float[Tensor, "_ 3 _ _"]],
    patch: int,
    shares: Sequence[float],
    bins: tuple[float, float],
    device: torch.device,
) -> list[float]:
    """The thresholds that part the patches of training images in given shares, over all processes.

    Raises:
        UserError: There are no images.
    """
    histogram = torch.zeros(STEPS + 1, dtype=torch.long, device=device)
    for images in batches:
        histogram += entropy_histogram(entropy_map(images.to(device), patch, bins))
    return thresholds_of(sum_over_processes(histogram), shares)
