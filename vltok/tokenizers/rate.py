"""Encoding at a rate, with a tokenizer that was trained for another or for none."""

import functools
import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.codes import Codes, Ratios
from vltok.devices import widest
from vltok.errors import UserError
from vltok.interfaces import Adaptive, Candidates, Proportioned, Steerable, Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import psnr
from vltok.measures.similarity import ssim
from vltok.rates import Rate, RateCalibration
from vltok.tokenizers.grain_steps import GrainSteps
from vltok.tokenizers.measured_gains import measured_alternatives

#: A calibration keeps so many thresholds, evenly spaced in the mean length.
_POINTS = 1025
#: No image has more codes, and PyTorch takes no larger number.
_MOST = torch.iinfo(torch.int64).max
#: A figure of each image, of its reconstruction and itself, which is the better the larger it is.
_Figure = Callable[[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]], Float[Tensor, " b"]]


class RateEncoder:
    """Encodes images at a rate.

    Args:
        tokenizer: One that is `Steerable`.
        rate: What is asked for.

    Raises:
        UserError: The tokenizer cannot be steered, or not so, or the weights of LPIPS are not there.
    """

    def __init__(self, tokenizer: Tokenizer, rate: Rate) -> None:
        if not isinstance(tokenizer, Steerable):
            raise UserError(f"rate {rate}: {type(tokenizer).__name__} cannot be steered: leave --rate out")
        spec = tokenizer.spec
        if isinstance(rate.value, Ratios) and rate.value.factors != spec.factors:
            raise UserError(f"rate {rate}: the tokenizer's factors are {list(spec.factors)}: give the share of each")
        self.tokenizer = tokenizer
        self.rate = rate
        self._steer = tokenizer.candidates
        # codes without a grid have no regions to try: what they gain is measured anyhow, where it is asked for
        if rate.measured and isinstance(tokenizer, Adaptive):
            self._steer = lambda images: GrainSteps(measured_alternatives(tokenizer, images), spec)
        self._figure: _Figure | None = {"psnr": psnr, "ssim": ssim}.get(rate.kind)
        if rate.kind == "lpips":
            from vltok.losses.perceptual import LPIPS, each_distance  # timm takes seconds to import

            network = LPIPS()
            network.load()
            network.to(next(tokenizer.parameters()).device).eval()
            self._figure = functools.partial(_negative, each_distance(network))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 H W"]) -> Codes:
        """The codes of images in [-1, 1], on the tokenizer's device.

        Raises:
            UserError: No image of this size can have such a rate, or the tokenizer does not take the size.
        """
        found = self._steer(images)
        if not len(images):
            return found.own
        value = self.rate.value
        if isinstance(value, Ratios):
            assert isinstance(found, Proportioned)
            return found.at(value)
        if self._figure is not None:
            floor = -value if self.rate.kind == "lpips" else value
            return found.after(self._fewest(found, images, self._figure, floor))
        match self.rate.kind:
            case "codes":
                return self._exactly(found, int(min(value, _MOST)))
            case "max-codes":
                return self._capped(found, int(min(value, _MOST)))
            case "bpp":
                return self._within(found, self._affordable(images[0, 0].numel(), value))
            case "threshold":
                return found.after((found.scores > value).sum(dim=1))
            case _:
                return self._on_average(found, value)

    def tiles(self, pixels: int) -> Callable[[Float[Tensor, "1 3 H W"]], Codes]:
        """Encodes the tiles of one picture, one after another, so that together they have the rate.

        Each has its share by area of a number of codes that is asked for, and of what the tiles before it left.

        Args:
            pixels: How many all tiles have together.
        """
        value = self.rate.value
        if self.rate.kind not in ("codes", "max-codes", "mean-codes", "bpp") or isinstance(value, Ratios):
            return self
        pixels_left = pixels
        codes_left = self._affordable(pixels, value) if self.rate.kind == "bpp" else min(value, _MOST)

        def encode(images: Float[Tensor, "1 3 H W"]) -> Codes:
            nonlocal pixels_left, codes_left
            if (here := images[0, 0].numel()) == pixels_left == pixels:
                return self(images)
            found = self._steer(images)
            share = codes_left if here == pixels_left else math.floor(codes_left * here / pixels_left)
            if self.rate.kind == "mean-codes":
                codes = self._on_average(found, value * here / pixels)
            elif self.rate.kind == "max-codes":
                codes = self._capped(found, int(share))
            elif here == pixels_left and self.rate.kind == "codes":
                codes = self._exactly(found, int(share))
            else:
                codes = self._within(found, int(share))
            pixels_left -= here
            codes_left -= int(codes.lengths.sum())
            return codes

        return encode

    def _exactly(self, found: Candidates, count: int) -> Codes:
        codes = self._within(found, count)
        if (lengths := codes.lengths.unique().tolist()) != [count]:
            above = [length for length in found.lengths.unique().tolist() if length > count]
            near = " or ".join(map(str, [lengths[0], *above[:1]]))
            raise UserError(f"rate {self.rate}: images of this size can have {near} codes, not {count}")
        return codes

    def _capped(self, found: Candidates, count: int) -> Codes:
        own = found.own
        over = own.lengths > count
        if not over.any():
            return own
        both = Codes.concatenate([own, self._within(found, count)])
        return both[torch.arange(len(own), device=own.device) + over * len(own)]

    def _affordable(self, pixels: int, bits_per_pixel: float) -> int:
        """The codes that go into so many bits a pixel, beside the grain map."""
        spec, bits = self.tokenizer.spec, bits_per_pixel * pixels
        regions = pixels // spec.factors[0] ** 2 if spec.gridded else 0
        each = fixed_rate_bits(1.0, 0, spec)
        left = bits - fixed_rate_bits(0.0, regions, spec)
        return int(left // each) if each else spec.longest_length

    def _within(self, found: Candidates, most: int) -> Codes:
        least = int(found.lengths[:, 0].max())
        if most < least:
            size = "" if self.rate.kind != "bpp" else f" of {most} codes"
            raise UserError(f"rate {self.rate}{size} is too low: images of this size have at least {least} codes")
        return found.within(found.lengths[:, -1].clamp(max=min(most, int(found.lengths.max()))))

    def _on_average(self, found: Candidates, mean: float) -> Codes:
        least, most = (found.lengths[:, end].to(widest(found.lengths.device)).mean().item() for end in (0, -1))
        if not least <= mean <= most:
            raise UserError(f"rate {self.rate}: images of this size have {least:g} to {most:g} codes")
        if len(found.lengths) > 1:
            return found.after(_shared(found, mean))
        if self.tokenizer.calibration is None:
            return found.within(torch.full_like(found.lengths[:, 0], math.floor(mean)))
        threshold = self.tokenizer.calibration.threshold(mean / most)
        return found.after((found.scores > threshold).sum(dim=1))

    def _fewest(
        self, found: Candidates, images: Float[Tensor, "b 3 H W"], figure: _Figure, floor: float
    ) -> Int[Tensor, " b"]:
        """The fewest steps after which each image has a figure of at least so much; all where none has.

        Found by bisection, which takes the figure to rise with each step. Where it does not, another, smaller number
        may do too; what is found always does.
        """
        steps = found.lengths.shape[1] - 1
        low = torch.zeros_like(found.lengths[:, 0])
        high = torch.full_like(low, steps)

        def reached(after: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
            decoded = self.tokenizer.decode_batch(found.after(after))
            return figure(decoded, images) >= floor

        for _ in range(steps.bit_length()):
            middle = (low + high) // 2
            enough = reached(middle) & (low < high)
            low, high = torch.where(enough | (low == high), low, middle + 1), torch.where(enough, middle, high)
        return high


def encoder_at(tokenizer: Tokenizer, rate: Rate | str | None) -> Callable[[Float[Tensor, "b 3 H W"]], Codes]:
    """What encodes images in [-1, 1] at a rate, or as the tokenizer itself chooses where none is asked for.

    Raises:
        UserError: There is no such rate, or the tokenizer cannot be steered so.
    """
    return tokenizer.encode if rate is None else RateEncoder(tokenizer, Rate.of(rate))


def calibrate(tokenizer: Tokenizer, batches: Iterable[Float[Tensor, "_ 3 _ _"]], data: str = "") -> RateCalibration:
    """Measure which threshold gives which mean code length.

    Args:
        tokenizer: One that is `Steerable`. What is found is not stored in it: set its `calibration`.
        batches: Pictures in [-1, 1], on the tokenizer's device.
        data: What they are, for whoever reads it.

    Raises:
        UserError: The tokenizer cannot be steered, or there are no pictures.
    """
    if not isinstance(tokenizer, Steerable):
        raise UserError(f"{type(tokenizer).__name__} chooses its code lengths itself: there is nothing to calibrate")
    scores, added, fewest, pictures = list[Tensor](), list[Tensor](), 0.0, 0
    for images in batches:
        found = tokenizer.candidates(images)
        lengths = found.lengths.cpu().double() / found.lengths[:, -1:].cpu()
        scores.append(found.scores.cpu().flatten())
        added.append(lengths.diff(dim=1).flatten())
        fewest += lengths[:, 0].sum().item()
        pictures += len(images)
    if not pictures:
        raise UserError("there are no pictures to calibrate the rate on; check that the data is not empty")
    ranked = torch.cat(scores).sort(descending=True)
    # a threshold that is a score leaves that step out
    shares = (fewest + torch.nn.functional.pad(torch.cat(added)[ranked.indices].cumsum(0), (1, 0))) / pictures
    places = torch.linspace(0, len(shares) - 1, min(_POINTS, len(shares))).round().long()
    steps = ranked.values[places.clamp(max=max(len(ranked.values) - 1, 0))] if len(ranked.values) else torch.zeros(1)
    if len(ranked.values):
        steps[-1] = torch.nextafter(ranked.values[-1], torch.tensor(-torch.inf))
    return RateCalibration(tuple(steps.tolist()), tuple(shares[places].clamp(max=1).tolist()), pictures, data)


def _shared(found: Candidates, mean: float) -> Int[Tensor, " b"]:
    """How many steps each image takes, so that all of a batch have a mean length by one threshold."""
    scores, lengths = found.scores, found.lengths
    ranked = scores.flatten().sort(descending=True, stable=True).indices
    spent = lengths[:, 0].sum() + lengths.diff(dim=1).flatten()[ranked].cumsum(0)
    # the number of steps whose total comes nearest
    total = round(mean * len(lengths))
    near = (torch.nn.functional.pad(spent, (1, 0), value=int(lengths[:, 0].sum())) - total).abs().argmin()
    taken = torch.empty_like(ranked).scatter(0, ranked, torch.arange(len(ranked), device=ranked.device)) < near
    return taken.view(scores.shape).sum(dim=1)


def _negative(figure: _Figure, decoded: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Tensor:
    return -figure(decoded, images)
