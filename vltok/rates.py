"""What is asked of the code length when images are encoded: `Rate`, and what a tokenizer was found to need for it."""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from vltok.code_spec import Ratios
from vltok.errors import UserError, unknown, whole_number

RateKind = Literal["codes", "max-codes", "mean-codes", "bpp", "psnr", "ssim", "lpips", "threshold", "ratios"]
_MEASURED = ",measured"
#: The version of what `RateCalibration.text` gives.
VERSION = 1


@dataclass(frozen=True)
class Rate:
    """How many codes images are given, or what they must look like, whatever the tokenizer was trained for.

    Attributes:
        kind: What `value` means:
            `codes`: Every image has exactly so many codes.
            `max-codes`: An image keeps the tokenizer's own choice, but for what goes beyond so many codes.
            `mean-codes`: Images that are encoded together have so many codes on average; an image alone has what the
            tokenizer's calibration gives for this mean (`vltok rate`), or without one as many at most.
            `bpp`: An image has as many codes as so many bits a pixel hold, at the fixed rate that
            `vltok.measures.codes.fixed_rate_bits` counts.
            `psnr` (dB), `ssim`: Every image has the fewest codes that reach so much, or all where none do.
            `lpips`: The same for a perceptual distance of at most so much.
            `threshold`: Images get the codes that gain more than so much, in the tokenizer's own units
            (`Candidates.scores`).
            `ratios`: Every image has these shares of granularities, to the nearest whole region.
        value: A number, or `Ratios`.
        measured: Whether what codes gain is measured by decoding alternatives, instead of being taken from the gate:
            slow, and the best that there is.

    Raises:
        UserError: The value does not suit the kind.
    """

    kind: RateKind
    value: float | Ratios
    measured: bool = False

    def __post_init__(self) -> None:
        if self.kind not in (kinds := get_args(RateKind)):
            raise unknown("rate", self.kind, kinds)
        if (self.kind == "ratios") != isinstance(self.value, Ratios):
            raise UserError(f"rate {self.kind}={self.value}: ratios, and they alone, are keyed by factor")
        if isinstance(self.value, Ratios):
            return
        if self.kind in ("codes", "max-codes"):
            object.__setattr__(self, "value", whole_number(f"rate {self.kind}", self.value, 1))
        else:
            object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value) or (self.value <= 0 and self.kind != "threshold"):
            allowed = "finite" if self.kind == "threshold" else "positive"
            raise UserError(f"rate {self.kind} must be a {allowed} number, not {self.value}")
        if self.kind == "ssim" and self.value > 1:
            raise UserError(f"rate ssim must lie in (0, 1], not {self.value}")

    @classmethod
    def of(cls, given: Rate | str) -> Rate:
        """What a text says, such as ``codes=400``, ``ratios=8:0.5,16:0.5`` or ``codes=400,measured``.

        Raises:
            UserError: It says no rate.
        """
        if isinstance(given, Rate):
            return given
        text = given.strip().removesuffix(_MEASURED)
        name, _, value = map(str.strip, text.partition("="))
        kind = next((kind for kind in get_args(RateKind) if kind == name), None)
        if kind is None:
            raise unknown("rate", name, get_args(RateKind)) if name.strip("0123456789.") else _without_kind(given, name)
        try:
            number = Ratios.of(_shares(value)) if kind == "ratios" else float(value)
            number = int(number) if isinstance(number, float) and number.is_integer() else number
            return cls(kind, number, measured=text != given.strip())
        except ValueError as error:
            example = "ratios=8:0.5,16:0.5" if kind == "ratios" else f"{kind}={_EXAMPLES.get(kind, 400)}"
            raise UserError(f"rate '{given}' must be one kind and its value, such as {example}") from error

    def __str__(self) -> str:
        value = repr(self.value).removesuffix(".0")
        if isinstance(self.value, Ratios):
            pairs = zip(self.value.factors, self.value.shares, strict=True)
            value = ",".join(f"{factor}:{share!r}".removesuffix(".0") for factor, share in pairs)
        return f"{self.kind}={value}{_MEASURED if self.measured else ''}"


@dataclass(frozen=True)
class RateCalibration:
    """Which threshold gives which mean code length, as `vltok rate` measured it on a set of pictures.

    Attributes:
        thresholds: Falling; each is compared with `Candidates.scores`.
        shares: The mean length of an image at each, as a share of the most codes that it can have; rising.
        pictures: How many pictures were measured.
        data: What they were.

    Raises:
        UserError: The two do not go together.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    pictures: int
    data: str = ""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.thresholds, *self.shares))):
            raise UserError("a calibration's thresholds and shares must be finite numbers")
        fall = list(self.thresholds) == sorted(self.thresholds, reverse=True)
        rise = list(self.shares) == sorted(self.shares) and all(0 <= share <= 1 for share in self.shares)
        if not self.shares or len(self.shares) != len(self.thresholds) or not fall or not rise:
            raise UserError("a calibration's thresholds must fall while its shares rise, one for each")

    def threshold(self, share: float) -> float:
        """The threshold for a mean length, as a share of the most codes, linearly between what was measured.

        Raises:
            UserError: No threshold gives it.
        """
        lowest, highest = self.shares[0], self.shares[-1]
        if not lowest - 1e-6 <= share <= highest + 1e-6:
            raise UserError(f"{share:.1%} of the most codes lies outside what was measured, {lowest:.1%}…{highest:.1%}")
        above = min(max(bisect.bisect_left(self.shares, share), 1), len(self.shares) - 1)
        below = max(above - 1, 0)
        span = self.shares[above] - self.shares[below]
        part = (share - self.shares[below]) / span if span else 0.0
        return self.thresholds[below] + min(max(part, 0.0), 1.0) * (self.thresholds[above] - self.thresholds[below])

    def text(self, tokenizer: str) -> str:
        """It as JSON, with the fingerprint of the tokenizer that was measured."""
        return json.dumps({"version": VERSION, "tokenizer": tokenizer, **asdict(self)})

    @classmethod
    def read(cls, text: str, tokenizer: str) -> RateCalibration:
        """The calibration that `text` wrote.

        Args:
            text: What it wrote.
            tokenizer: The fingerprint of the tokenizer that is to have it.

        Raises:
            UserError: It is none, one of a later version, or another tokenizer's.
        """
        try:
            content = json.loads(text)
            if content["version"] != VERSION:
                raise UserError(
                    f"it has version {content['version']!r}, this vltok reads {VERSION}: install a later one"
                )
            if content["tokenizer"] != tokenizer:
                raise UserError("it was measured with another tokenizer")
            thresholds, shares = (tuple(map(float, content[name])) for name in ("thresholds", "shares"))
            return cls(thresholds, shares, whole_number("pictures", content["pictures"], 1), str(content["data"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("it is no calibration of rates; `vltok rate` writes one") from error


_EXAMPLES: Mapping[str, Any] = {"bpp": 0.2, "psnr": 30, "ssim": 0.9, "lpips": 0.1, "threshold": 0.5}


def _without_kind(given: str, number: str) -> UserError:
    """The error for a number alone, or for nothing."""
    example = number or "400"
    return UserError(
        f"rate '{given}' does not say what it is: codes={example} are exactly so many, max-codes={example} at most, "
        f"mean-codes={example} on average; there are also {', '.join(get_args(RateKind)[3:])}"
    )


def _shares(text: str) -> dict[int, float]:
    """Ratios as ``8:0.5,16:0.5`` or ``{8: 0.5, 16: 0.5}``.

    Raises:
        ValueError: They are none.
    """
    pairs = [pair.split(":") for pair in text.strip("{}").split(",")]
    shares = {int(factor): float(share) for factor, share in pairs}
    if len(shares) < len(pairs):
        raise UserError(f"ratios must name each factor once, not {text}")
    return shares
