"""What the codes of a tokenizer may be. Granularities count **from coarse to fine**: 0 is the largest factor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from vltok.errors import UserError, whole_number


@dataclass(frozen=True)
class CodeSpec:
    """What the codes of a tokenizer may be. A tokenizer publishes it once; a prior is built from it.

    Attributes:
        codebook_size: Number of entries of the codebook, v, or of each of several.
        factors: Candidate downsampling factors, the paper's F (eq. 2), kept from coarse to fine; empty when codes lie
            on no grid (1D tokenizers).
        regions: The grid of regions (h, w) that every image has, where it is the same for all; None where it is not
            known, as in a tokenizer, which takes images of any size.
        max_length: Longest code sequence of one image, for codes that lie on no grid.
        codebooks: Number of ids of a code, q, each an entry of a codebook of its own: 1, or several as residual,
            product and binary quantizers give them. Lengths count codes, not ids.

    Raises:
        UserError: Factors that repeat or do not divide each other, or sizes that are not positive whole numbers.
    """

    codebook_size: int
    factors: tuple[int, ...] = ()
    regions: tuple[int, int] | None = None
    max_length: int | None = None
    # files of before it say nothing of it, and those of one codebook stay what they were
    codebooks: int = field(default=1, metadata={"unwritten": 1})

    def __post_init__(self) -> None:
        factors = tuple(whole_number("a factor", factor) for factor in self.factors)
        object.__setattr__(self, "codebook_size", whole_number("codebook_size", self.codebook_size, 1))
        object.__setattr__(self, "codebooks", whole_number("codebooks", self.codebooks, 1))
        object.__setattr__(self, "factors", tuple(sorted(factors, reverse=True)))
        if any(factor < 1 for factor in self.factors):
            raise UserError(f"factors must be at least 1, not {list(self.factors)}")
        for coarse, fine in itertools.pairwise(self.factors):
            if coarse == fine or coarse % fine:
                raise UserError(f"each factor must be a multiple of the next finer one; {coarse} is none of {fine}")
        if self.regions is not None:
            object.__setattr__(self, "regions", tuple(whole_number("regions", side) for side in self.regions))
            if not factors or len(self.regions) != 2 or min(self.regions) < 1:
                raise UserError(f"regions must be two positive numbers of a spec with factors, not {self.regions}")
        if self.max_length is not None:
            object.__setattr__(self, "max_length", whole_number("max_length", self.max_length))
            if factors or self.max_length < 1:
                raise UserError(f"max_length must be positive and is for codes without a grid, not {self.max_length}")

    @property
    def id_shape(self) -> tuple[int, ...]:
        """The axis that a code's ids have: none where it has one, that of q where it has several."""
        return () if self.codebooks == 1 else (self.codebooks,)

    @property
    def entries(self) -> int:
        """The number of entries of all codebooks together, q·v."""
        return self.codebooks * self.codebook_size

    @property
    def bits_per_code(self) -> float:
        """The bits that tell a code from all others, q·log2(v)."""
        return self.codebooks * math.log2(self.codebook_size)

    @property
    def granularities(self) -> int:
        """The number of granularities, the paper's K; 0 when codes lie on no grid."""
        return len(self.factors)

    @property
    def gridded(self) -> bool:
        """Whether codes lie on a grid of regions."""
        return bool(self.factors)

    @property
    def any_grid(self) -> bool:
        """Whether codes lie on a grid of regions that may be another one for each image."""
        return self.gridded and self.regions is None

    @property
    def sides(self) -> tuple[int, ...]:
        """For each granularity, the codes along one side of a region: f_K / f_k."""
        return tuple(self.factors[0] // factor for factor in self.factors)

    @property
    def codes_per_region(self) -> tuple[int, ...]:
        """For each granularity, the codes of one region: (f_K / f_k)²."""
        return tuple(side**2 for side in self.sides)

    @property
    def codes_per_step(self) -> tuple[int, ...]:
        """For each step to the next finer granularity, the codes that it adds to a region."""
        return tuple(fine - coarse for coarse, fine in itertools.pairwise(self.codes_per_region))

    def positions(self, granularity: int) -> int:
        """The number of places of a granularity's position map, h·w·(f_K / f_k)²."""
        return math.prod(self.grid) * self.codes_per_region[granularity]

    @property
    def longest_length(self) -> int:
        """The most codes that one image can have."""
        if self.gridded:
            return math.prod(self.grid) * self.codes_per_region[-1]
        if self.max_length is None:
            raise UserError("this spec names no max_length, so that the longest length of its codes is not known")
        return self.max_length

    # Special tokens (section 3.3). Those of the content track follow the codebook, those of a position track follow its
    # places: ⟨pad⟩, ⟨eos⟩, then ⟨sos⟩, or a start for each class. Packing needs no ⟨pad⟩; it keeps its id, unused, so
    # that weights trained with padding fit. Where codes have several ids, a special token is the same one in each.
    @property
    def content_end(self) -> int:
        """The id of ⟨eos⟩ in the content track."""
        return self.codebook_size + 1

    @property
    def content_start(self) -> int:
        """The id of ⟨sos⟩ in the content track; with classes, that of class c is `content_start + c`."""
        return self.codebook_size + 2

    def position_end(self, granularity: int) -> int:
        """The id of ⟨eos⟩ in the position track of a granularity."""
        return self.positions(granularity) + 1

    def position_start(self, granularity: int) -> int:
        """The id of ⟨sos⟩ in the position track of a granularity."""
        return self.positions(granularity) + 2

    @property
    def grid(self) -> tuple[int, int]:
        """The rows and columns of regions.

        Raises:
            UserError: They are not known.
        """
        if self.regions is None:
            raise UserError(
                "this spec names no grid of regions, as that of pictures of several sizes, but one is needed here: "
                "give its regions, as in regions: [16, 16]"
            )
        return self.regions


@dataclass(frozen=True)
class Ratios:
    """Target shares of regions, one for each granularity from coarse to fine; recipes write ``{8: 0.5, 16: 0.5}``.

    Attributes:
        factors: From coarse to fine.
        shares: The share of regions of each, r_k in [0, 1].
    """

    factors: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, ratios: Mapping[int, float]) -> Ratios:
        """Check ratios keyed by factor, and order them from coarse to fine.

        Raises:
            UserError: They are empty, negative, not keyed by factors, or do not sum to 1.
        """
        # JSON has texts for keys
        keys = [int(key) if isinstance(key, str) and key.isdecimal() else key for key in ratios]
        factors = [whole_number("a factor in ratios", key, 1) for key in keys]
        written = dict(zip(factors, map(float, ratios.values()), strict=True))
        total = sum(written.values())
        # comparisons that NaN fails
        if not written or not all(share >= 0 for share in written.values()) or not abs(total - 1) <= 1e-6:
            raise UserError(
                f"ratios must be shares of at least 0 that sum to 1, keyed by factor, not {written} (sum {total:g})"
            )
        ordered = tuple(sorted(written, reverse=True))
        return cls(ordered, tuple(written[factor] for factor in ordered))

    @property
    def codes_per_region(self) -> float:
        """The mean number of codes of a region at these ratios, Σ r_k (f_K / f_k)²."""
        coarsest = self.factors[0]
        return sum(share * (coarsest // factor) ** 2 for factor, share in zip(self.factors, self.shares, strict=True))
