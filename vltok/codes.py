"""The two values that everything shares: `CodeSpec`, what codes may be, and `Codes`, a ragged batch of them.

Axis letters: b image, c channel, h w grid of regions, H W pixels, t code (packed over the batch), k granularity.
Granularities count **from coarse to fine**: 0 is the largest factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.errors import UserError, whole_number


@dataclass(frozen=True)
class CodeSpec:
    """What the codes of a tokenizer may be. A tokenizer publishes it once; a prior is built from it.

    Attributes:
        codebook_size: Number of entries of the codebook, v.
        factors: Candidate downsampling factors, the paper's F (eq. 2), kept from coarse to fine; empty when codes lie
            on no grid (1D tokenizers).
        regions: The grid of regions (h, w) that every image has, where it is the same for all; None where it is not
            known, as in a tokenizer, which takes images of any size.
        max_length: Longest code sequence of one image, for codes that lie on no grid.

    Raises:
        UserError: Factors that repeat or do not divide each other, or sizes that are not positive whole numbers.
    """

    codebook_size: int
    factors: tuple[int, ...] = ()
    regions: tuple[int, int] | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        factors = tuple(whole_number("a factor", factor) for factor in self.factors)
        object.__setattr__(self, "codebook_size", whole_number("codebook_size", self.codebook_size, 1))
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
    def granularities(self) -> int:
        """The number of granularities, the paper's K; 0 when codes lie on no grid."""
        return len(self.factors)

    @property
    def gridded(self) -> bool:
        """Whether codes lie on a grid of regions."""
        return bool(self.factors)

    @property
    def sides(self) -> tuple[int, ...]:
        """For each granularity, the codes along one side of a region: f_K / f_k."""
        return tuple(self.factors[0] // factor for factor in self.factors)

    @property
    def codes_per_region(self) -> tuple[int, ...]:
        """For each granularity, the codes of one region: (f_K / f_k)²."""
        return tuple(side**2 for side in self.sides)

    def positions(self, granularity: int) -> int:
        """The number of places of a granularity's position map, h·w·(f_K / f_k)²."""
        return math.prod(self._regions()) * self.codes_per_region[granularity]

    @property
    def longest_length(self) -> int:
        """The most codes that one image can have."""
        if self.gridded:
            return math.prod(self._regions()) * self.codes_per_region[-1]
        if self.max_length is None:
            raise UserError("this spec names no max_length, so that the longest length of its codes is not known")
        return self.max_length

    # Special tokens (section 3.3). Those of the content track follow the codebook, those of a position track follow its
    # places: ⟨pad⟩, ⟨eos⟩, then ⟨sos⟩, or a start for each class. Packing needs no ⟨pad⟩; it keeps its id, unused, so
    # that weights trained with padding fit.
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

    def _regions(self) -> tuple[int, int]:
        if self.regions is None:
            raise UserError("this spec has no grid of regions yet: set it with dataclasses.replace(spec, regions=…)")
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


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of a batch of images: ragged, packed, without padding.

    Within an image, codes stand coarse to fine and, within a granularity, row by row over its position map. Positions
    follow from the grain map and are not stored.

    Attributes:
        ids: Codebook indices of all images, one after another, `[t]`.
        lengths: The code length of each image, `[b]`.
        grains: The granularity of each region, `[b h w]`; None when codes lie on no grid.
        labels: The class of each image, `[b]`, or None.
    """

    ids: Int[Tensor, " t"]
    lengths: Int[Tensor, " b"]
    grains: Int[Tensor, "b h w"] | None = None
    labels: Int[Tensor, " b"] | None = None

    @classmethod
    def from_code_map(
        cls,
        code_map: Int[Tensor, "b H W"],
        grains: Int[Tensor, "b h w"],
        spec: CodeSpec,
        labels: Int[Tensor, " b"] | None = None,
    ) -> Codes:
        """Pack code maps of the finest grid; of a replicated coarse code the top-left copy is read.

        Raises:
            UserError: The code map's size does not fit the grain map's.
        """
        expected = tuple(side * spec.sides[-1] for side in grains.shape[1:])
        if tuple(code_map.shape[1:]) != expected:
            raise UserError(f"a grain map {tuple(grains.shape[1:])} needs a code map {expected}, not {code_map.shape}")
        slots, lengths = _slots(grains, spec)
        # Copies of one coarse code hold one value, so that it does not matter which of them is written last.
        ids = code_map.new_zeros(int(lengths.sum()))
        ids[slots.flatten()] = _top_left(code_map, grains, spec).flatten()
        return cls(ids, lengths, grains, labels)

    def to_code_map(self, spec: CodeSpec) -> Int[Tensor, "b H W"]:
        """Lay the codes on the finest grid, coarse ones replicated (nearest neighbour, section 3.2).

        Raises:
            UserError: The codes lie on no grid.
        """
        slots, _ = _slots(self.require_grains(), spec)
        return self.ids[slots]

    def require_grains(self) -> Int[Tensor, "b h w"]:
        """The grain map.

        Raises:
            UserError: The codes lie on no grid.
        """
        if self.grains is None:
            raise UserError("these codes lie on no grid: they have no grain map, which is needed here")
        return self.grains

    def granularities(self, spec: CodeSpec) -> Int[Tensor, " t"]:
        """The granularity of each code."""
        return self._at_codes(lambda granularity, side: granularity, spec)

    def positions(self, spec: CodeSpec) -> Int[Tensor, " t"]:
        """The place of each code in the position map of its granularity, counted row by row."""
        height, width = self.require_grains().shape[1:]
        finest = spec.sides[-1]

        def place(granularity: int, side: int) -> Tensor:
            step = finest // side
            rows = torch.arange(height * finest, device=self.ids.device) // step
            columns = torch.arange(width * finest, device=self.ids.device) // step
            return rows[:, None] * (width * side) + columns

        return self._at_codes(place, spec)

    def validate(self, spec: CodeSpec) -> Codes:
        """Check every value against a spec, and return the codes; for what comes from disk.

        Raises:
            UserError: An id outside the codebook, lengths that do not follow from the grain map, or sizes that do not
                fit each other or the spec.
        """
        if self.ids.numel() != int(self.lengths.sum()) or bool((self.lengths < 0).any()):
            raise UserError(f"the lengths sum to {int(self.lengths.sum())}, but there are {self.ids.numel()} ids")
        if self.labels is not None and self.labels.shape != self.lengths.shape:
            raise UserError(f"there are {self.labels.numel()} labels for {len(self)} images")
        if self.ids.numel() and not 0 <= int(self.ids.min()) <= int(self.ids.max()) < spec.codebook_size:
            raise UserError(
                f"ids reach from {int(self.ids.min())} to {int(self.ids.max())}, outside a codebook of "
                f"{spec.codebook_size}"
            )
        if spec.gridded:
            grains = self.require_grains()
            if grains.numel() and not 0 <= int(grains.min()) <= int(grains.max()) < spec.granularities:
                raise UserError(f"the grain map holds a granularity outside 0…{spec.granularities - 1}")
            if spec.regions is not None and tuple(grains.shape[1:]) != spec.regions:
                raise UserError(f"the grain map has {tuple(grains.shape[1:])} regions, but the spec {spec.regions}")
            if not torch.equal(_lengths(grains, spec), self.lengths.long()):
                raise UserError("the lengths do not follow from the grain map")
        elif spec.max_length is not None and len(self) and int(self.lengths.max()) > spec.max_length:
            raise UserError(f"an image has {int(self.lengths.max())} codes, more than max_length = {spec.max_length}")
        return self

    @property
    def cu_seqlens(self) -> Int[Tensor, " starts"]:
        """Where each image starts among the packed codes, with the end of the last: `[b+1]`, int32."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0)).int()

    @property
    def device(self) -> torch.device:
        """Where the codes are."""
        return self.ids.device

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on a device."""
        return self._map(lambda tensor: tensor.to(device))

    def __len__(self) -> int:
        return self.lengths.shape[0]

    def __iter__(self) -> Iterator[Codes]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | Int[Tensor, " n"] | Bool[Tensor, " b"]) -> Codes:
        """The codes of some images, in the order asked for; one index gives a batch of one.

        Raises:
            IndexError: An index outside the batch.
        """
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of a batch of {len(self)}")
            index = [index]
        if isinstance(index, slice):
            index = list(range(len(self))[index])  # torch knows no negative steps
        index = torch.as_tensor(index, device=self.device)
        index = index if index.dtype == torch.bool else index.long()  # an empty list is of integers too
        chosen = torch.arange(len(self), device=self.device)[index]
        starts = self.cu_seqlens[:-1].long()[chosen]
        lengths = self.lengths[chosen]
        offsets = lengths.cumsum(0) - lengths
        source = torch.repeat_interleave(starts - offsets, lengths)
        return Codes(
            self.ids[source + torch.arange(source.numel(), device=self.device)],
            lengths,
            None if self.grains is None else self.grains[chosen],
            None if self.labels is None else self.labels[chosen],
        )

    @staticmethod
    def concatenate(parts: Sequence[Codes]) -> Codes:
        """One batch of several.

        Raises:
            UserError: There is no part, some have grain maps or labels and others none, or grain maps differ in size.
        """
        if not parts:
            raise UserError("there are no codes to concatenate")

        def join(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if all(value is None for value in values):
                return None
            if any(value is None for value in values) or len({value.shape[1:] for value in values}) > 1:
                raise UserError(f"codes with different {name} do not go into one batch")
            return torch.cat(values)

        return Codes(join("ids"), join("lengths"), join("grains"), join("labels"))

    def equal(self, other: Codes) -> bool:
        """Whether both hold the same values."""

        def same(first: Tensor | None, second: Tensor | None) -> bool:
            if first is None or second is None:
                return first is second
            return torch.equal(first, second)

        return all(same(getattr(self, name), getattr(other, name)) for name in ("ids", "lengths", "grains", "labels"))

    def _map(self, function) -> Codes:
        values = {name: getattr(self, name) for name in ("ids", "lengths", "grains", "labels")}
        return replace(self, **{name: None if value is None else function(value) for name, value in values.items()})

    def _at_codes(self, value_of, spec: CodeSpec) -> Int[Tensor, " t"]:
        """Read a map of the finest grid at every code: `value_of(granularity, side)` is a number or an [H W] map."""
        grains = self.require_grains()
        slots, _ = _slots(grains, spec)
        finest = _repeat(grains, spec.sides[-1])
        values = torch.zeros_like(finest)
        for granularity, side in enumerate(spec.sides):
            values = torch.where(finest == granularity, value_of(granularity, side), values)
        result = self.ids.new_zeros(self.ids.shape, dtype=torch.long)
        result[slots.flatten()] = values.long().flatten()
        return result


def _repeat(grid: Tensor, times: int) -> Tensor:
    """Replicate each cell of `[b h w]` to times × times cells."""
    return grid.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)


def _lengths(grains: Int[Tensor, "b h w"], spec: CodeSpec) -> Int[Tensor, " b"]:
    """The code length of each image."""
    # granularity by granularity: a table of the codes per region would have to be copied to the device
    return torch.stack(
        [(grains == granularity).sum(dim=(1, 2)) * codes for granularity, codes in enumerate(spec.codes_per_region)]
    ).sum(dim=0)


def _slots(grains: Int[Tensor, "b h w"], spec: CodeSpec) -> tuple[Int[Tensor, "b H W"], Int[Tensor, " b"]]:
    """For each cell of the finest grid, which of the packed codes lies there; and the code length of each image."""
    lengths = _lengths(grains, spec)
    # where the codes of the granularity at hand start, in each image
    start = lengths.cumsum(0) - lengths
    slots = torch.zeros_like(_repeat(grains, spec.sides[-1]), dtype=torch.long)
    for granularity, side in enumerate(spec.sides):
        here = _repeat(grains == granularity, side)
        flat = here.flatten(1).long()
        rank = (flat.cumsum(1) - flat).view(here.shape) + start[:, None, None]
        repeat = spec.sides[-1] // side
        slots = torch.where(_repeat(here, repeat), _repeat(rank, repeat), slots)
        start = start + flat.sum(1)
    return slots, lengths


def _top_left(code_map: Int[Tensor, "b H W"], grains: Int[Tensor, "b h w"], spec: CodeSpec) -> Int[Tensor, "b H W"]:
    """Every cell takes the value at the top left of the square that its code covers."""
    finest = _repeat(grains, spec.sides[-1])
    result = code_map
    for granularity, side in enumerate(spec.sides):
        step = spec.sides[-1] // side
        result = torch.where(finest == granularity, _repeat(code_map[:, ::step, ::step], step), result)
    return result
