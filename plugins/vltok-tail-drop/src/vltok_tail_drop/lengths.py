"""Length policies: how many codes of an image are kept, from the first on.

The errors that they go by are mean squares over the 8-bit values of an image's pixels, as PSNR has them.
Axis letters: b image, n length, H W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from vltok.arguments import KeepsArguments
from vltok.errors import UserError

Measure = Callable[[Int[Tensor, "b m"]], Float[Tensor, "b m"]]


class LengthPolicy(KeepsArguments, nn.Module, ABC):
    """Chooses the code length of each image. An image's length depends on no other image."""

    @property
    @abstractmethod
    def expected_length(self) -> float | None:
        """The mean code length that it asks for, or None where it asks for something else."""

    @abstractmethod
    def forward(self, images: int, longest: int, measure: Measure) -> Int[Tensor, " b"]:
        """The length of each image, from 1 to `longest`.

        Args:
            images: How many there are.
            longest: The most codes that one may keep.
            measure: Decodes images at lengths, some for each image, `[b m]`, and gives their errors, `[b m]`.
        """


class Observing(ABC):
    """A length policy that learns from what training sees."""

    @abstractmethod
    def observe(self, lengths: Int[Tensor, " b"], errors: Float[Tensor, " b"], longest: int) -> None:
        """Learn from images that were cut at lengths drawn evenly from 1 to `longest`, and their errors."""


class FixedLength(LengthPolicy):
    """Every image keeps as many codes.

    Args:
        length: How many.

    Raises:
        UserError: It is less than 1.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        _check_length(length)
        self.length = length

    @property
    def expected_length(self) -> float:
        return float(self.length)

    def forward(self, images: int, longest: int, measure: Measure) -> Int[Tensor, " b"]:
        return torch.full((images,), self.length)


class PSNRTarget(LengthPolicy):
    """Each image keeps the fewest codes whose reconstruction reaches a PSNR, or all where none does.

    Every length is tried, since the error need not fall with each code: an image is decoded as often as it may have
    codes.

    Args:
        psnr: The peak signal-to-noise ratio of 8-bit pixels to reach, in dB.

    Raises:
        UserError: It is not positive.
    """

    def __init__(self, psnr: float) -> None:
        super().__init__()
        if not psnr > 0:
            raise UserError(f"length_policy.psnr must be a positive number of dB, not {psnr}")
        self.psnr = psnr

    @property
    def expected_length(self) -> None:
        return None

    def forward(self, images: int, longest: int, measure: Measure) -> Int[Tensor, " b"]:
        errors = measure(torch.arange(1, longest + 1).expand(images, -1))
        reached = errors <= 255**2 / 10 ** (self.psnr / 10)
        reached[:, -1] = True
        return reached.int().argmax(dim=1) + 1


class MeanLength(LengthPolicy, Observing):
    """Images keep a number of codes on average: each the fewest that bring its error below one threshold for all.

    So a simple image keeps few and a complex one many, and no code goes where the error is small already. The length is
    found by bisection: an image is decoded as often as its longest length has bits, and its error taken to fall with
    each code. The threshold is learned in training, which cuts images at lengths n drawn evenly: the mean length is
    1 + (longest - 1) · P(error at n > threshold | n < longest), and the threshold moves until that is what was asked
    for. For a tokenizer that was trained with another policy, `calibrate` sets it.

    Args:
        length: The mean number of codes.
        rate: How fast the threshold follows: by a factor of at most e^rate a step.

    Raises:
        UserError: A length of less than 1, or a rate that is not positive.
    """

    threshold: Tensor

    def __init__(self, length: float, rate: float = 0.2) -> None:
        super().__init__()
        _check_length(length)
        if not rate > 0:
            raise UserError(f"length_policy.rate must be positive, not {rate}")
        self.length = length
        self.rate = rate
        # 0 until something was observed: then every image keeps all codes
        self.register_buffer("threshold", torch.zeros(()))

    @property
    def expected_length(self) -> float:
        return float(self.length)

    def forward(self, images: int, longest: int, measure: Measure) -> Int[Tensor, " b"]:
        return _bisect(images, longest, measure, self.threshold)

    @torch.no_grad()
    def observe(self, lengths: Int[Tensor, " b"], errors: Float[Tensor, " b"], longest: int) -> None:
        errors, cut = errors.float(), lengths < longest
        above = cut & (errors > self.threshold)
        seen = torch.stack([above, cut, errors, torch.ones_like(errors)]).sum(dim=1)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
        above, cuts, total, images = seen
        excess = above / cuts.clamp_min(1) - (self.length - 1) / (longest - 1)
        moved = self.threshold * (self.rate * excess * (cuts > 0)).exp()
        self.threshold.copy_(torch.where(self.threshold > 0, moved, total / images))

    @torch.no_grad()
    def calibrate(self, errors: Float[Tensor, "b n"]) -> None:
        """Set the least threshold at which the mean length of images is no more than what was asked for.

        Args:
            errors: Those of a set of images: `TailDrop.errors` of all, concatenated.
        """
        longest = errors.shape[1]
        candidates = errors.flatten().sort().values
        low, high = 0, len(candidates) - 1
        while low < high:
            middle = (low + high) // 2
            lengths = _bisect(len(errors), longest, lambda at: errors.gather(1, at - 1), candidates[middle])
            if lengths.double().mean() <= self.length:
                high = middle
            else:
                low = middle + 1
        self.threshold.copy_(candidates[high])


def pixel_errors(reconstructions: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """The mean square of what 8-bit values of each image's pixels are off by; both sides are in [-1, 1]."""
    return (_rounded(reconstructions) - _rounded(images)).square().mean(dim=(1, 2, 3))


def _bisect(images: int, longest: int, measure: Measure, threshold: Float[Tensor, ""]) -> Int[Tensor, " b"]:
    """The length from which on the error of each image lies within a threshold; the longest where it never does."""
    low = torch.ones(images, dtype=torch.long, device=threshold.device)
    high = torch.full_like(low, longest)
    for _ in range((longest - 1).bit_length()):
        middle = (low + high) // 2
        within = (measure(middle[:, None])[:, 0] <= threshold).to(low.device)
        low, high = torch.where(within, low, middle + 1).minimum(high), torch.where(within, middle, high)
    return high


def _rounded(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round()


def _check_length(length: float) -> None:
    if not length >= 1:
        raise UserError(f"length_policy.length must be at least 1 code, not {length}")
