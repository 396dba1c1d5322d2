"""What a set of codes looks like: lengths, ratios, use of the codebook, bits per pixel.

Everything is counted in integers, so that the counts of parts add up to those of the whole, exactly and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from vltok.code_maps import entries
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError


@dataclass(frozen=True, eq=False)
class CodeCounts:
    """What is counted over sequences of codes.

    Attributes:
        pixels: Pixels of all pictures.
        lengths: How many sequences have length i, `[longest + 1]`.
        regions: How many regions have granularity k, `[k]`; empty where codes lie on no grid.
        uses: How often each entry of the codebooks, one codebook after another, stands in a code of granularity k,
            `[k e]`; `[1 e]` without a grid.
    """

    pixels: int
    lengths: Int64[np.ndarray, " length"]
    regions: Int64[np.ndarray, " k"]
    uses: Int64[np.ndarray, "_ e"]

    @classmethod
    def none(cls, spec: CodeSpec) -> CodeCounts:
        """The counts of no sequence."""
        uses = np.zeros((max(1, spec.granularities), spec.entries), dtype=np.int64)
        return cls(0, np.zeros(1, dtype=np.int64), np.zeros(spec.granularities, dtype=np.int64), uses)

    @classmethod
    def of(cls, codes: Codes, spec: CodeSpec, pixels: int) -> CodeCounts:
        """Count a batch of codes, on the CPU, of pictures that have so many pixels together."""
        if len(codes) == 0:
            return cls.none(spec)
        rows = max(1, spec.granularities)
        cells = entries(codes.ids.long(), spec).reshape(-1, spec.codebooks)
        regions = np.zeros(0, dtype=np.int64)
        if spec.gridded:
            cells = cells + spec.entries * codes.granularities(spec)[:, None]
            regions = np.bincount(codes.require_grains().numpy().ravel(), minlength=rows)
        uses = np.bincount(cells.flatten().numpy(), minlength=rows * spec.entries).reshape(rows, spec.entries)
        return cls(pixels, np.bincount(codes.lengths.numpy()), regions, uses)

    def __add__(self, other: CodeCounts) -> CodeCounts:
        lengths = np.zeros(max(len(self.lengths), len(other.lengths)), dtype=np.int64)
        lengths[: len(self.lengths)] += self.lengths
        lengths[: len(other.lengths)] += other.lengths
        return CodeCounts(self.pixels + other.pixels, lengths, self.regions + other.regions, self.uses + other.uses)

    @classmethod
    def total(cls, parts: Iterable[CodeCounts], spec: CodeSpec) -> CodeCounts:
        """The counts of the whole."""
        return sum(parts, start=cls.none(spec))

    def to_json(self) -> dict[str, Any]:
        """As plain values; zeros, of which there are many, are left out."""
        places = self.uses.ravel().nonzero()[0]
        return {
            "pixels": self.pixels,
            "lengths": _histogram(self.lengths),
            "regions": self.regions.tolist(),
            "used": places.tolist(),
            "uses": self.uses.ravel()[places].tolist(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], spec: CodeSpec) -> CodeCounts:
        """The counts that `to_json` wrote."""
        empty = cls.none(spec)
        lengths = np.zeros(max(map(int, values["lengths"]), default=0) + 1, dtype=np.int64)
        for length, count in values["lengths"].items():
            lengths[int(length)] = count
        empty.uses.ravel()[np.array(values["used"], dtype=np.int64)] = values["uses"]
        return cls(values["pixels"], lengths, np.array(values["regions"], dtype=np.int64), empty.uses)

    def statistics(self, spec: CodeSpec) -> dict[str, Any]:
        """The figures of the manifest.

        Returns:
            `samples`, `codes` and `pixels`: totals.
            `length`: mean, variance (of the population), minimum, maximum, and the histogram `{length: samples}`.
            `ratios`: the share of regions of each granularity, by factor.
            `codebook_usage`: the share of codebook entries that occur at all, in codes of any granularity and of each.
            `bits_per_pixel`: codes at q·log2(v) bits each, and the same with the grain map at log2(K) bits a region.

        Raises:
            UserError: Nothing was counted.
        """
        samples = int(self.lengths.sum())
        if samples == 0:
            raise UserError("there are no codes to make statistics of")
        present = self.lengths.nonzero()[0]
        # Python's integers: exact however many sequences there are
        total = sum(int(length) * int(self.lengths[length]) for length in present)
        squares = sum(int(length) ** 2 * int(self.lengths[length]) for length in present)
        names = [str(factor) for factor in spec.factors]
        regions = int(self.regions.sum())
        bits = total * spec.bits_per_code
        grain_bits = regions * math.log2(spec.granularities) if spec.gridded else 0.0
        usage = {"any": float((self.uses.sum(0) > 0).mean())}
        if spec.gridded:
            usage |= dict(zip(names, (self.uses > 0).mean(1).tolist(), strict=True))
        return {
            "samples": samples,
            "codes": total,
            "pixels": self.pixels,
            "length": {
                "mean": total / samples,
                "variance": (samples * squares - total**2) / samples**2,
                "minimum": int(present[0]),
                "maximum": int(present[-1]),
                "histogram": _histogram(self.lengths),
            },
            "ratios": {name: int(count) / regions for name, count in zip(names, self.regions, strict=True)},
            "codebook_usage": usage,
            "bits_per_pixel": {
                "codes": bits / self.pixels,
                "codes_and_grain_map": (bits + grain_bits) / self.pixels,
            },
        }


def _histogram(counts: Int64[np.ndarray, " length"]) -> dict[str, int]:
    return {str(length): int(counts[length]) for length in counts.nonzero()[0]}
