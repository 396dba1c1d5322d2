"""The rate-distortion curve of a tokenizer: what pictures cost and lose at each rate, beside codecs on the same pixels.

Axis letters: n picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.evaluation.codecs import Codec
from vltok.evaluation.coders import CodecCoder, CodedBatch, TokenizerCoder, codecs_here
from vltok.evaluation.reconstruction import PictureFigure
from vltok.figures.examples import Example
from vltok.interfaces import Candidates, Steerable, Tokenizer
from vltok.measures.pixels import decibels, mse, psnr, to_bytes, to_unit_range
from vltok.measures.similarity import ssim
from vltok.nn.precision import computing
from vltok.pictures.images import ImageBatch
from vltok.rates import Rate, RateCalibration

_FIGURES: Mapping[str, PictureFigure] = {"psnr": psnr, "ssim": ssim, "mse": mse}
#: At which qualities codecs are measured.
_QUALITIES: Mapping[Codec, tuple[int, ...]] = {
    "jpeg": (5, 10, 20, 40, 60, 80, 95),
    "webp": (1, 10, 25, 50, 75, 90, 100),
    "avif": (5, 20, 35, 50, 65, 80, 95),
    "jpeg2000": (20, 23, 26, 29, 32, 36, 40),
    "jpegxl": (5, 20, 35, 50, 65, 80, 95),
}
#: How far between their ends the mean lengths lie at which codes are counted.
_COUNTED_AT = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class CurvePoint:
    """What a set of pictures costs, and what they lose, at one rate.

    Attributes:
        asked: What was asked for: of a tokenizer `length`, the mean number of codes, and the `threshold` that the
            calibration gives for it; of a codec its `quality`; nothing where the tokenizer chose itself.
        images: The figures of each picture, by name: `psnr` in dB, `ssim`, `mse`; `file_bits_per_pixel`, headers
            included; of a tokenizer also `length`, and `bits_per_pixel` at the fixed rate.
        examples: The first pictures.
    """

    asked: Mapping[str, float]
    images: Mapping[str, Float[np.ndarray, " n"]]
    examples: Sequence[Example] = ()

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each figure over the pictures, and the PSNR of all together, `psnr_pooled`."""
        means = {name: float(column.mean()) for name, column in self.images.items()}
        return {**means, "psnr_pooled": decibels(torch.tensor(means["mse"], dtype=torch.float64)).item()}

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        images = {name: [float(f"{value:.6g}") for value in column] for name, column in self.images.items()}
        return {"asked": dict(self.asked), "mean": self.mean, "images": images}


@dataclass(frozen=True, eq=False)
class RateCurve:
    """A tokenizer from its lowest rate to its highest.

    Attributes:
        points: By rising rate; none where it cannot be steered.
        own: What it chooses itself.
        codecs: Codecs by name, each by rising quality.
        missing: The codecs that Pillow does not write on this machine.
        keys: What names each picture.
    """

    points: tuple[CurvePoint, ...]
    own: CurvePoint
    codecs: Mapping[Codec, tuple[CurvePoint, ...]]
    missing: tuple[Codec, ...]
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "points": [point.to_json() for point in self.points],
            "own": self.own.to_json(),
            "codecs": {name: [point.to_json() for point in points] for name, points in self.codecs.items()},
            "missing_codecs": list(self.missing),
            "pictures": list(self.keys),
        }


@torch.inference_mode()
def codes_of_rates(
    tokenizer: Tokenizer,
    calibration: RateCalibration | None,
    batches: Iterable[ImageBatch],
    device: torch.device | str,
) -> Iterator[Codes]:
    """The codes that a tokenizer chooses itself, and those of several rates, on the CPU.

    Args:
        tokenizer: In evaluation mode, on `device`.
        calibration: Its calibration; without one, its own choice is all.
        batches: The pictures.
        device: Where to compute.
    """
    thresholds = {} if calibration is None else _thresholds(calibration, _COUNTED_AT)
    for batch in batches:
        with computing(device):
            own, found = _choices(tokenizer, calibration, batch.images.to(device))
            yield own.to("cpu")
            if found is not None:
                for threshold in thresholds.values():
                    yield found.above(threshold).to("cpu")


@torch.inference_mode()
def measure_rates(
    tokenizer: Tokenizer,
    files: Callable[[Codes, str], Float[Tensor, " b"]],
    calibration: RateCalibration | None,
    batches: Iterable[ImageBatch],
    points: int,
    codecs: bool,
    examples: int,
    device: torch.device | str,
) -> RateCurve:
    """Measure a tokenizer at rates that the calibration gives; one batch is in memory at a time, and encoded once.

    Args:
        tokenizer: In evaluation mode, on `device`.
        files: Gives the bits of the files that its codes become, which say what rate was asked for.
        calibration: Its calibration; without one, its own choice is all.
        batches: The pictures, whose sizes may differ between batches.
        points: At how many rates, evenly spaced in the mean code length from the least to the most.
        codecs: Whether to measure codecs beside it, those that Pillow writes here.
        examples: How many of the first pictures to keep.
        device: Where to compute.

    Raises:
        UserError: There is no picture, the tokenizer does not take them, or it gives no numbers.
    """
    here = codecs_here() if codecs else []
    own = _Series(examples)
    thresholds = {} if calibration is None else _thresholds(calibration, np.linspace(0, 1, points).tolist())
    steered = {share: _Series(examples) for share in thresholds}
    coded = {(name, quality): _Series(0) for name in here for quality in _QUALITIES[name]}
    coders = {codec: CodecCoder(*codec) for codec in coded}
    coder, keys, longest = TokenizerCoder(tokenizer, device), list[str](), 0
    for batch in batches:
        pixels = to_bytes(batch.images)
        with computing(device):
            chosen, found = _choices(tokenizer, calibration, batch.images.to(device))
        own.add(batch.keys, pixels, coder.decoded(chosen), device, files(chosen, ""))
        if found is not None:
            finest = found.lengths[:, -1].float()
            longest += int(finest.sum())
            for share, threshold in thresholds.items():
                with computing(device):
                    codes = found.above(threshold)
                rate = str(Rate("mean-codes", round(share * finest.mean().item(), 1)))
                steered[share].add(batch.keys, pixels, coder.decoded(codes), device, files(codes, rate))
        for codec, series in coded.items():
            series.add(batch.keys, pixels, coders[codec](pixels), device)
        keys += batch.keys
    if not keys:
        raise UserError("there is no picture to measure")
    most = longest / len(keys)
    return RateCurve(
        tuple(
            series.point({"length": share * most, "threshold": thresholds[share]}) for share, series in steered.items()
        ),
        own.point({}),
        {
            name: tuple(coded[name, quality].point({"quality": float(quality)}) for quality in _QUALITIES[name])
            for name in here
        },
        tuple(name for name in get_args(Codec) if name not in here) if codecs else (),
        tuple(keys),
    )


def _choices(
    tokenizer: Tokenizer, calibration: RateCalibration | None, images: Float[Tensor, "b 3 H W"]
) -> tuple[Codes, Candidates | None]:
    """What a tokenizer chooses for images, and where it can be steered, what it could choose."""
    if calibration is None:
        return tokenizer.encode(images), None
    assert isinstance(tokenizer, Steerable)
    found = tokenizer.candidates(images)
    return found.own, found


def _thresholds(calibration: RateCalibration, places: Sequence[float]) -> dict[float, float]:
    """The thresholds of mean lengths, by their share of the most codes.

    Args:
        calibration: Gives them.
        places: Where the lengths lie between the least, 0, and the most, 1.
    """
    low, high = calibration.shares[0], calibration.shares[-1]
    shares = [low + place * (high - low) for place in places]
    return {share: calibration.threshold(share) for share in shares}


@dataclass(eq=False)
class _Series:
    """Figures of pictures at one rate, batch by batch.

    Attributes:
        most: How many examples to keep.
    """

    most: int
    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def add(
        self,
        keys: Sequence[str],
        pixels: UInt8[Tensor, "b 3 H W"],
        coded: CodedBatch,
        device: torch.device | str,
        in_files: Float[Tensor, " b"] | None = None,
    ) -> None:
        """Measure a batch; `in_files` are the bits of the files of codes."""
        area = pixels[0, 0].numel()
        decoded, original = (to_unit_range(side.to(device)) for side in (coded.pixels, pixels))
        found = {name: figure(decoded, original).cpu() for name, figure in _FIGURES.items()}
        if coded.codes is None or in_files is None:
            found["file_bits_per_pixel"] = coded.bits / area
        else:
            found["length"] = coded.codes.lengths
            found["bits_per_pixel"] = coded.bits / area
            found["file_bits_per_pixel"] = in_files / area
        for name, column in found.items():
            self.columns.setdefault(name, []).append(column.double().numpy())
        for place in range(min(self.most - len(self.examples), len(keys))):
            own = {name: column[place].item() for name, column in found.items()}
            codes = None if coded.codes is None else coded.codes[place]
            self.examples.append(Example(keys[place], pixels[place], coded.pixels[place], codes, own))

    def point(self, asked: Mapping[str, float]) -> CurvePoint:
        """What came of it."""
        return CurvePoint(
            asked, {name: np.concatenate(column) for name, column in self.columns.items()}, tuple(self.examples)
        )
