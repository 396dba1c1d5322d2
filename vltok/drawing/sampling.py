"""Drawing tokens: guidance and filters of logits, and a random stream for each image.

Everything is a tensor operation over the batch; nothing waits for the device.
Axis letters: b image, n row (an image, or with guidance an image with its class and one without), v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.devices import widest
from vltok.drawing.config import SamplingOptions, VariableLengthSampling
from vltok.errors import UserError

# The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), whose
# constants are written here as signed numbers: PyTorch multiplies int64 modulo 2⁶⁴.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def seed_of(generator: torch.Generator | None) -> int:
    """A seed for the streams of images: one number of a generator, PyTorch's default one where None."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def streams(seed: int, images: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The random stream of each image, a function of the seed and the image's number alone."""
    return _mix(_mix(images.new_full((), seed)) + images)


def uniforms(streams: Int[Tensor, "*shape"], counts: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Numbers, uniform in [0, 1): of each stream the one that a count says."""
    # so few bits that the product with a probability stays below it
    bits = 32 if widest(streams.device) == torch.float64 else 23
    return (_shift(_mix(streams + counts), 64 - bits)).to(widest(streams.device)) / 2**bits


class LogitWatch:
    """Keeps logits finite, so that every draw is legal, and remembers whether any was no number: on the device, which
    nobody waits for until `require_numbers` is called."""

    def __init__(self) -> None:
        self._broken: Tensor | None = None

    def finite(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The logits; infinite ones become the ends of their type, and NaN, which is noted, 0."""
        broken = logits.isnan().any()[None]
        # in place, so that captured steps add to it too
        self._broken = broken if self._broken is None else self._broken.logical_or_(broken)
        return logits.nan_to_num()

    def forget(self) -> None:
        """Remember nothing of the logits so far."""
        self._broken = None

    def require_numbers(self) -> None:
        """Wait for the device, and see that all logits so far were numbers.

        Raises:
            UserError: One was NaN.
        """
        if self._broken is not None:
            self.read(self._broken[:0])

    def read(self, answers: Bool[Tensor, " n"]) -> list[bool]:
        """The same, and what the device answers to something else, for which the host would have to wait again.

        Raises:
            UserError: See `require_numbers`.
        """
        if self._broken is None:
            return answers.tolist()
        broken, *read = torch.cat([self._broken, answers]).tolist()
        if broken:
            raise UserError(
                "the prior's logits are no numbers (NaN): its weights are broken, or too large for the precision; "
                "draw in float32, or from an earlier checkpoint"
            )
        return read


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans, 2022): each image has a row with its class and one without.

    Attributes:
        scale: How far logits go from those without the class towards those with it; 1 is no guidance, and one row.
        watch: Sees all logits.
    """

    scale: float
    watch: LogitWatch = field(default_factory=LogitWatch, compare=False)

    def rows(self, values: Tensor) -> Tensor:
        """What both rows of each image have: `[b …]` → `[n …]`."""
        return values if self.scale == 1 else torch.cat([values, values])

    def labels(self, labels: Int[Tensor, " b"], classes: int | None) -> Int[Tensor, " n"]:
        """The class of each row; `classes` where it has none."""
        if self.scale == 1 or classes is None:
            return labels
        return torch.cat([labels, torch.full_like(labels, classes)])

    def kept(self, rows: Int[Tensor, " m"], images: int) -> Int[Tensor, " n"]:
        """The rows of some of so many images."""
        return rows if self.scale == 1 else torch.cat([rows, rows + images])

    def logits(self, logits: Float[Tensor, "n v"]) -> Float[Tensor, "b v"]:
        """The guided logits of each image, all of them finite."""
        logits = self.watch.finite(logits.float())
        if self.scale == 1:
            return logits
        # in double precision no difference overflows; in single, what overflows becomes an end of the type again
        conditional, unconditional = logits.to(widest(logits.device)).chunk(2)
        return (unconditional + self.scale * (conditional - unconditional)).nan_to_num()


def draw_content(
    logits: Float[Tensor, "b v"], sampling: SamplingOptions, uniform: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """A content of each row's distribution, as the configuration asks for."""
    return drawn(filtered(logits, sampling.temperature, sampling.top_k, sampling.top_p), uniform)


def draw_position(
    logits: Float[Tensor, "b v"], sampling: VariableLengthSampling, uniform: Float[Tensor, " b"]
) -> Int[Tensor, " b"]:
    """A position, or what stands for one, of each row's distribution, as the configuration asks for."""
    kept = filtered(logits, sampling.position_temperature, sampling.position_top_k, sampling.position_top_p)
    return drawn(kept, uniform)


def filtered(logits: Float[Tensor, "b v"], temperature: float, top_k: int | None, top_p: float) -> Float[Tensor, "b v"]:
    """Logits over a temperature, less a number for each row, -inf where top-k and then top-p leave nothing.

    Args:
        logits: Finite, but for -inf where nothing may be drawn; not everywhere.
        temperature: Positive.
        top_k: How many to keep, more where several are equal to the last; None for all.
        top_p: Keep the likeliest until their probabilities reach this, in (0, 1].
    """
    if temperature != 1:
        # Differences alone count. Over a temperature near 0 they become -inf, and the likeliest token is left.
        limits = torch.finfo(logits.dtype)
        logits = (logits - logits.amax(-1, keepdim=True)) / min(max(temperature, limits.tiny), limits.max)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ranked, order = logits.sort(descending=True)
        probabilities = ranked.softmax(-1)
        # a token stays when those before it have not reached p: the likeliest one always does, however small p is
        surplus = probabilities.cumsum(-1) - probabilities >= max(top_p, torch.finfo(logits.dtype).tiny)
        logits = logits.masked_fill(torch.zeros_like(surplus).scatter(1, order, surplus), -torch.inf)
    return logits


def drawn(logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """A token of each row's distribution, by inverting its cumulative sum at a uniform number in [0, 1)."""
    cumulative = logits.to(widest(logits.device)).softmax(-1).cumsum(-1)
    # The first token whose sum exceeds the threshold has a probability above 0. The sum's own last value is the total,
    # which rounding may leave off 1.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


def _mix(numbers: Tensor) -> Tensor:
    mixed = numbers + _GAMMA
    mixed = (mixed ^ _shift(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shift(mixed, 27)) * _SECOND
    return mixed ^ _shift(mixed, 31)


def _shift(numbers: Tensor, bits: int) -> Tensor:
    # logical shift to the right: PyTorch's keeps the sign
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
