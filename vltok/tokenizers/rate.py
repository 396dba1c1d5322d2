"""Encoding at a rate, with a tokenizer that was trained for another or for none."""

import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vltok.codes import Codes, Ratios
from vltok.devices import widest
from vltok.errors import UserError
from vltok.interfaces import Adaptive, Candidates, Proportioned, Steerable, Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import picture_psnr, psnr, to_bytes, to_unit_range
from vltok.measures.similarity import SSIM_SIDE, picture_ssim, ssim
from vltok.rates import Rate, RateCalibration
from vltok.tokenizers.grain_steps import GrainSteps
from vltok.tokenizers.measured_gains import measured_alternatives
from vltok.tokenizers.tiled_steps import TiledSteps

_LOG = logging.getLogger(__name__)
#: A calibration keeps so many thresholds, evenly spaced in the mean length.
_POINTS = 1025
#: No image has more codes, and PyTorch takes no larger number.
_MOST = torch.iinfo(torch.int64).max
#: The fewest pixels along a side of which a figure can be told.
_LEAST_SIDES = {"psnr": 1, "ssim": SSIM_SIDE, "lpips": 16}
#: What a batch of images could be encoded to, or the tiles of a picture; and what they are.
_Steps = Candidates | TiledSteps
_Found = Codes | list[Codes]
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
        self._warned = False
        self._figures: dict[str, _Figure] = {"psnr": psnr, "ssim": ssim}
        if rate.kind == "lpips":
            from vltok.losses.perceptual import LPIPS, each_distance  # timm takes seconds to import

            network = LPIPS()
            network.load_or("ask for another rate, such as ssim=0.9 or psnr=30")
            network.to(next(tokenizer.parameters()).device).eval()
            self._figures["lpips"] = functools.partial(_negative, each_distance(network))

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 H W"]) -> Codes:
        """The codes of images in [-1, 1], on the tokenizer's device.

        Raises:
            UserError: No image of this size can have such a rate, or the tokenizer does not take the size.
        """
        found = self._steer(images)
        if not len(images):
            return found.own
        area = images[0, 0].numel()

        def figures(codes: Codes) -> Float[Tensor, " b"]:
            return self._figures[self.rate.kind](self.tokenizer.decode_batch(codes), images)

        codes = self._chosen(found, area, area, figures)
        assert isinstance(codes, Codes)
        return codes

    @torch.no_grad()
    def tiles(
        self,
        picture: UInt8[Tensor, "3 H W"],
        places: Sequence[tuple[slice, slice]],
        shown: tuple[int, int],
        device: torch.device | str,
    ) -> list[Codes]:
        """The codes of the tiles of one picture, which has the rate as a whole: they go to the tiles that gain most.

        LPIPS is the mean of that of the tiles, by their area; ratios are those of each tile.

        Args:
            picture: Its pixels, and what was added on the right and below.
            places: The rows and columns of each tile.
            shown: The height and width in pixels of what figures and bits a pixel speak of: the picture itself.
            device: The tokenizer's.

        Raises:
            UserError: No picture of this size can have such a rate, or the tokenizer does not take the tiles' size.
        """
        images = (to_unit_range(picture[:, down, across])[None].to(device) for down, across in places)
        found = TiledSteps([self._steer(image) for image in images])

        def figures(codes: Sequence[Codes]) -> Float[Tensor, " 1"]:
            decoded = torch.empty_like(picture)
            for (down, across), tile in zip(places, codes, strict=True):
                decoded[:, down, across] = to_bytes(self.tokenizer.decode_batch(tile)[0]).cpu()
            return torch.tensor([self._figure_of(decoded, picture, places, shown, device)])

        codes = self._chosen(found, picture[0].numel(), shown[0] * shown[1], figures)
        assert isinstance(codes, list)
        return codes

    def _chosen(self, found: _Steps, pixels: int, shown: int, figures: Callable[[Any], Float[Tensor, " b"]]) -> _Found:
        """The codes at the rate.

        Args:
            found: What images could be encoded to.
            pixels: How many an image has.
            shown: How many of them are the picture's.
            figures: How good codes are, where the rate asks for that: the larger, the better.
        """
        value = self.rate.value
        if isinstance(value, Ratios):
            assert isinstance(found, Proportioned | TiledSteps)
            return found.at(value)
        match self.rate.kind:
            case "codes":
                return self._exactly(found, int(value))
            case "max-codes":
                return self._capped(found, int(value))
            case "bpp":
                return self._within(found, self._affordable(pixels, shown, value))
            case "threshold":
                return found.above(value)
            case "mean-codes":
                return self._on_average(found, value)
            case _:
                floor = -value if self.rate.kind == "lpips" else value
                steps = _fewest(found.lengths, lambda steps: figures(found.after(steps)) >= floor)
                return found.after(steps)

    def _figure_of(
        self,
        decoded: UInt8[Tensor, "3 H W"],
        picture: UInt8[Tensor, "3 H W"],
        places: Sequence[tuple[slice, slice]],
        shown: tuple[int, int],
        device: torch.device | str,
    ) -> float:
        """How good the tiles of a picture are together; see `tiles`."""
        least = _LEAST_SIDES[self.rate.kind]
        if self.rate.kind != "lpips":
            height, width = (max(side, least) for side in shown)
            figure = {"psnr": picture_psnr, "ssim": picture_ssim}[self.rate.kind]
            return figure(decoded[:, :height, :width], picture[:, :height, :width])
        total = 0.0
        for place in places:
            rows, columns = (
                slice(part.start, min(part.stop, max(side, part.start + least)))
                for part, side in zip(place, shown, strict=True)
            )
            sides = (to_unit_range(each[:, rows, columns])[None].to(device) for each in (decoded, picture))
            total += self._figures["lpips"](*sides).item() * picture[0, place[0], place[1]].numel()
        return total / picture[0].numel()

    def _exactly(self, found: _Steps, count: int) -> _Found:
        codes = self._within(found, count)
        if (lengths := _lengths(codes).unique().tolist()) != [count]:
            more = found.lengths[found.lengths > min(count, _MOST)]
            near = f"{lengths[0]} or {more.min().item()}" if more.numel() else str(lengths[0])
            raise UserError(f"rate {self.rate}: images of this size can have {near} codes, not {count}")
        return codes

    def _capped(self, found: _Steps, count: int) -> _Found:
        own = found.own
        over = _lengths(own) > min(count, _MOST)
        if not over.any():
            return own
        within = self._within(found, count)
        if not isinstance(own, Codes) or not isinstance(within, Codes):  # of one picture
            return within
        return Codes.concatenate([own, within])[torch.arange(len(own), device=own.device) + over * len(own)]

    def _affordable(self, pixels: int, shown: int, bits_per_pixel: float) -> int:
        """The codes that go into so many bits a pixel of those shown, beside the grain map of all of them."""
        spec, bits = self.tokenizer.spec, min(bits_per_pixel * shown, float(_MOST))
        regions = pixels // spec.factors[0] ** 2 if spec.gridded else 0
        each = fixed_rate_bits(1.0, 0, spec)
        left = bits - fixed_rate_bits(0.0, regions, spec)
        return int(left // each) if each else _MOST

    def _within(self, found: _Steps, most: int) -> _Found:
        least = int(found.lengths[:, 0].max())
        if most < least:
            raise UserError(f"rate {self.rate} is too low: images of this size have at least {least} codes")
        return found.within(found.lengths[:, -1].clamp(max=min(most, int(found.lengths.max()))))

    def _on_average(self, found: _Steps, mean: float) -> _Found:
        least, most = (found.lengths[:, end].to(widest(found.lengths.device)).mean().item() for end in (0, -1))
        if not least <= mean <= most:
            raise UserError(f"rate {self.rate}: images of this size have {least:g} to {most:g} codes")
        if len(found.lengths) > 1:
            return found.after(_shared(found, mean))
        if self.tokenizer.calibration is not None:
            return found.above(self.tokenizer.calibration.threshold(mean / most))
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "rate %s: a picture that is encoded alone gets at most so many codes, whatever it holds: calibrate "
                "with 'vltok rate' to give it more or fewer, so that the mean holds",
                self.rate,
            )
        return found.within(torch.full_like(found.lengths[:, 0], math.floor(mean)))


def _fewest(
    lengths: Int[Tensor, "b _"], reached: Callable[[Int[Tensor, " b"]], Bool[Tensor, " b"]]
) -> Int[Tensor, " b"]:
    """The fewest steps after which each image has reached what is asked for; all where it never does.

    Found by bisection, which takes the figure to rise with each step. Where it does not, another, smaller number may do
    too; what is found always does.
    """
    steps = lengths.shape[1] - 1
    low = torch.zeros_like(lengths[:, 0])
    high = torch.full_like(low, steps)
    for _ in range(steps.bit_length()):
        middle = (low + high) // 2
        enough = reached(middle).to(low.device) & (low < high)
        low, high = torch.where(enough | (low == high), low, middle + 1), torch.where(enough, middle, high)
    return high


def encoder_at(tokenizer: Tokenizer, rate: Rate | str | None) -> Callable[[Float[Tensor, "b 3 H W"]], Codes]:
    """What encodes images in [-1, 1] at a rate, or as the tokenizer itself chooses where none is asked for.

    Raises:
        UserError: There is no such rate, or the tokenizer cannot be steered so.
    """
    return tokenizer.encode if rate is None else RateEncoder(tokenizer, Rate.of(rate))


def tiles_at(
    tokenizer: Tokenizer,
    rate: RateEncoder | None,
    picture: UInt8[Tensor, "3 H W"],
    places: Sequence[tuple[slice, slice]],
    shown: tuple[int, int],
    device: torch.device | str,
) -> Iterator[Codes]:
    """The codes of the tiles of one picture, as `RateEncoder.tiles` gives them, or of the tokenizer's own choice."""
    if rate is not None:
        yield from rate.tiles(picture, places, shown, device)
        return
    for down, across in places:
        yield tokenizer.encode(to_unit_range(picture[:, down, across])[None].to(device))


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
    shares = (fewest + torch.nn.functional.pad(torch.cat(added)[ranked.indices].cumsum(0), (1, 0))) / pictures
    thresholds, places = _kept(ranked.values, shares)
    return RateCalibration(tuple(thresholds.tolist()), tuple(shares[places].clamp(max=1).tolist()), pictures, data)


def _kept(ranked: Float[Tensor, " n"], shares: Float[Tensor, " m"]) -> tuple[Float[Tensor, " p"], Int[Tensor, " p"]]:
    """The thresholds to keep, and the number of steps that lie above each.

    A threshold that is a score leaves out all steps of this score; one just below takes them all. Where they are many,
    as of regions without a structure, both are kept: nothing lies between.

    Args:
        ranked: The scores of all steps, falling.
        shares: The mean length after no step, one step, and so on.
    """
    if not len(ranked):
        return torch.zeros(1), torch.zeros(1, dtype=torch.long)
    wanted = torch.linspace(shares[0].item(), shares[-1].item(), _POINTS, dtype=shares.dtype)
    found = ranked[torch.searchsorted(shares, wanted).clamp(max=len(ranked) - 1)].unique().flip(0)
    first, after = (torch.searchsorted(-ranked, -found, right=right) for right in (False, True))
    wide = shares[after] - shares[first] > 2 * (wanted[1] - wanted[0])
    wide[-1] = True
    below = torch.nextafter(found, torch.full_like(found, -torch.inf))[wide]
    thresholds, order = torch.cat([found, below]).sort(descending=True)
    return thresholds, torch.cat([first, after[wide]])[order]


def _shared(found: _Steps, mean: float) -> Int[Tensor, " b"]:
    """How many steps each image takes, so that all of a batch have a mean length by one threshold."""
    scores, lengths = found.scores, found.lengths
    ranked = scores.flatten().sort(descending=True, stable=True).indices
    spent = lengths[:, 0].sum() + lengths.diff(dim=1).flatten()[ranked].cumsum(0)
    # the number of steps whose total comes nearest
    total = round(mean * len(lengths))
    near = (torch.nn.functional.pad(spent, (1, 0), value=int(lengths[:, 0].sum())) - total).abs().argmin()
    taken = torch.empty_like(ranked).scatter(0, ranked, torch.arange(len(ranked), device=ranked.device)) < near
    return taken.view(scores.shape).sum(dim=1)


def _lengths(codes: Codes | Sequence[Codes]) -> Int[Tensor, " b"]:
    """The code length of each image, or of the picture whose tiles they are."""
    if isinstance(codes, Codes):
        return codes.lengths
    return torch.stack([tile.lengths for tile in codes]).sum(dim=0)


def _negative(figure: _Figure, decoded: Float[Tensor, "b 3 H W"], images: Float[Tensor, "b 3 H W"]) -> Tensor:
    return -figure(decoded, images)
