"""Encoding at a rate, with a tokenizer that was trained for another or for none."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vltok.codes import Codes, Ratios
from vltok.devices import widest
from vltok.errors import UserError
from vltok.interfaces import Adaptive, Candidates, Proportioned, Steerable, Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import psnr
from vltok.measures.similarity import SSIM_SIDE, ssim
from vltok.rates import Rate, RateCalibration
from vltok.tokenizers.grain_steps import GrainSteps
from vltok.tokenizers.measured_gains import measured_alternatives

#: A calibration keeps so many thresholds, evenly spaced in the mean length.
_POINTS = 1025
#: No image has more codes, and PyTorch takes no larger number.
_MOST = torch.iinfo(torch.int64).max
#: The fewest pixels along a side of which a figure can be told.
_LEAST_SIDES = {"psnr": 1, "ssim": SSIM_SIDE, "lpips": 16}
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
    def __call__(self, images: Float[Tensor, "b 3 H W"], shown: tuple[int, int] | None = None) -> Codes:
        """The codes of images in [-1, 1], on the tokenizer's device.

        Args:
            images: They.
            shown: The height and width in pixels of what is judged of them: what they have on the right and below was
                added to a picture. All of them by default.

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
            return found.after(self._fewest(found, images, self._figure, floor, shown or images.shape[2:]))
        match self.rate.kind:
            case "codes":
                return self._exactly(found, int(value))
            case "max-codes":
                return self._capped(found, int(value))
            case "bpp":
                return self._within(found, self._affordable(images[0, 0].numel(), images[0, 0].numel(), value))
            case "threshold":
                return found.above(value)
            case _:
                return self._on_average(found, value)

    def tiles(self, pixels: int, shown: int) -> Callable[[Float[Tensor, "1 3 H W"], tuple[int, int]], Codes]:
        """Encodes the tiles of one picture, one after another, so that together they have the rate.

        Each has its share by area of a number of codes that is asked for, and of what the tiles before it left. What
        bits a pixel and figures speak of is the picture, not what was added to it.

        Args:
            pixels: How many all tiles have together.
            shown: How many of them are the picture's.

        Returns:
            What takes a tile, and the height and width of the picture in it.
        """
        value = self.rate.value
        if self.rate.kind not in ("codes", "max-codes", "mean-codes", "bpp") or isinstance(value, Ratios):
            return self
        total = self._affordable(pixels, shown, value) if self.rate.kind == "bpp" else int(value)
        pixels_left, codes_left = pixels, total

        @torch.no_grad()
        def encode(images: Float[Tensor, "1 3 H W"], shown: tuple[int, int]) -> Codes:
            nonlocal pixels_left, codes_left
            here = images[0, 0].numel()
            found = self._steer(images)
            share = codes_left if here == pixels_left else codes_left * here // pixels_left
            if self.rate.kind == "mean-codes":
                codes = self._on_average(found, value * here / pixels, pixels / here)
            elif self.rate.kind == "max-codes":
                codes = self._capped(found, share, pixels / here)
            elif here == pixels_left and self.rate.kind == "codes":
                codes = self._exactly(found, share, pixels / here, total - codes_left)
            else:
                codes = self._within(found, share, pixels / here)
            pixels_left -= here
            codes_left -= int(codes.lengths.sum())
            return codes

        return encode

    # Of a tile, messages speak of the whole picture: `tiles` says how many such tiles make it up, and `before` how many
    # codes the others have.

    def _exactly(self, found: Candidates, count: int, tiles: float = 1.0, before: int = 0) -> Codes:
        codes = self._within(found, count, tiles)
        if (lengths := codes.lengths.unique().tolist()) != [count]:
            above = [length for length in found.lengths.unique().tolist() if length > count]
            near = " or ".join(str(before + length) for length in [lengths[0], *above[:1]])
            raise UserError(f"rate {self.rate}: images of this size can have {near} codes, not {before + count}")
        return codes

    def _capped(self, found: Candidates, count: int, tiles: float = 1.0) -> Codes:
        own = found.own
        over = own.lengths > min(count, _MOST)
        if not over.any():
            return own
        both = Codes.concatenate([own, self._within(found, count, tiles)])
        return both[torch.arange(len(own), device=own.device) + over * len(own)]

    def _affordable(self, pixels: int, shown: int, bits_per_pixel: float) -> int:
        """The codes that go into so many bits a pixel of those shown, beside the grain map of all of them."""
        spec, bits = self.tokenizer.spec, min(bits_per_pixel * shown, float(_MOST))
        regions = pixels // spec.factors[0] ** 2 if spec.gridded else 0
        each = fixed_rate_bits(1.0, 0, spec)
        left = bits - fixed_rate_bits(0.0, regions, spec)
        return int(left // each) if each else spec.longest_length

    def _within(self, found: Candidates, most: int, tiles: float = 1.0) -> Codes:
        least = int(found.lengths[:, 0].max())
        if most < least:
            least = round(least * tiles)
            raise UserError(f"rate {self.rate} is too low: images of this size have at least {least} codes")
        return found.within(found.lengths[:, -1].clamp(max=min(most, int(found.lengths.max()))))

    def _on_average(self, found: Candidates, mean: float, tiles: float = 1.0) -> Codes:
        least, most = (found.lengths[:, end].to(widest(found.lengths.device)).mean().item() for end in (0, -1))
        if not least <= mean <= most:
            raise UserError(f"rate {self.rate}: images of this size have {least * tiles:g} to {most * tiles:g} codes")
        if len(found.lengths) > 1:
            return found.after(_shared(found, mean))
        if self.tokenizer.calibration is None:
            return found.within(torch.full_like(found.lengths[:, 0], math.floor(mean)))
        return found.above(self.tokenizer.calibration.threshold(mean / most))

    def _fewest(
        self,
        found: Candidates,
        images: Float[Tensor, "b 3 H W"],
        figure: _Figure,
        floor: float,
        shown: Sequence[int],
    ) -> Int[Tensor, " b"]:
        """The fewest steps after which each image has a figure of at least so much; all where none has.

        Found by bisection, which takes the figure to rise with each step. Where it does not, another, smaller number
        may do too; what is found always does.
        """
        height, width = (max(side, _LEAST_SIDES[self.rate.kind]) for side in shown)
        images = images[..., :height, :width]
        steps = found.lengths.shape[1] - 1
        low = torch.zeros_like(found.lengths[:, 0])
        high = torch.full_like(low, steps)

        def reached(after: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
            decoded = self.tokenizer.decode_batch(found.after(after))[..., :height, :width]
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
