"""The two values that everything shares: `CodeSpec`, what codes may be, and `Codes`, a ragged batch of them.

Axis letters: b image, c channel, h w grid of regions, H W pixels, t code (packed over the batch), k granularity.
Granularities count **from coarse to fine**: 0 is the largest factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.errors import UserError, whole_number

#: Labels are numbers of 64 bits.
LARGEST_LABEL = torch.iinfo(torch.int64).max


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

    def require_labels(self, classes: int) -> Int[Tensor, " b"]:
        """The class of each image, one of so many. On a GPU nobody waits for the answer: a wrong one ends the process.

        Raises:
            UserError: There are no labels, or, where they are on the host, one is no class.
        """
        if self.labels is None:
            raise UserError("these codes have no labels, which a prior with classes learns from: set `classes` to null")
        labels = self.labels.long()
        # a label that is no class would be read as another token: -1 as the end of the sequence
        if labels.device.type == "cuda":
            torch._assert_async(((labels >= 0) & (labels < classes)).all(), "a label of these codes is no class")
        elif labels.device.type == "cpu" and len(labels):
            lowest, highest = int(labels.min()), int(labels.max())
            if lowest < 0 or highest >= classes:
                label, remedy = highest, "set --model.prior.classes"
                if lowest < 0:
                    label, remedy = lowest, "leave images of unknown class out, or give them one of their own"
                raise UserError(
                    f"the codes have label {label}, but the prior knows {classes} classes, from 0 to {classes - 1}: "
                    f"{remedy}"
                )
        return labels

    def validate(self, spec: CodeSpec) -> Codes:
        """Check every value against a spec, and return the codes; the host waits for the device once.

        Raises:
            UserError: An id outside the codebook, lengths that do not follow from the grain map, or sizes that do not
                fit each other or the spec.
        """
        for name, value in self._values().items():
            if value is not None and (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool):
                raise UserError(f"{name} of codes must be whole numbers, not {value.dtype}")
            axes = "bhw" if name == "grains" else "t" if name == "ids" else "b"
            if value is not None and value.dim() != len(axes):
                raise UserError(f"{name} of codes must have the shape [{' '.join(axes)}], not {list(value.shape)}")
        if self.labels is not None and self.labels.shape != self.lengths.shape:
            raise UserError(f"there are {self.labels.numel()} labels for {len(self)} images")
        grains = self.require_grains() if spec.gridded else self.lengths.new_zeros(len(self), 1, 1)
        if len(grains) != len(self):
            raise UserError(f"there are {len(grains)} grain maps for {len(self)} images")
        if spec.regions is not None and tuple(grains.shape[1:]) != spec.regions:
            raise UserError(f"the grain map has {tuple(grains.shape[1:])} regions, but the spec {spec.regions}")
        expected = _lengths(grains, spec) if spec.gridded else self.lengths
        facts = [*_bounds(self.lengths), *_bounds(self.ids), *_bounds(grains)]
        facts += [self.lengths.sum(), (expected != self.lengths).any()]
        shortest, longest, lowest, highest, coarsest, finest, total, differs = torch.stack(
            [fact.long() for fact in facts]
        ).tolist()
        if shortest < 0:
            raise UserError(f"an image has {shortest} codes, less than none")
        if total != self.ids.numel():
            raise UserError(f"the lengths sum to {total}, but there are {self.ids.numel()} ids")
        if not 0 <= lowest <= highest < spec.codebook_size:
            raise UserError(f"ids reach from {lowest} to {highest}, outside a codebook of {spec.codebook_size}")
        if spec.gridded and not 0 <= coarsest <= finest < spec.granularities:
            raise UserError(f"the grain map holds a granularity outside 0…{spec.granularities - 1}")
        if differs:
            raise UserError("the lengths do not follow from the grain map")
        if spec.max_length is not None and longest > spec.max_length:
            raise UserError(f"an image has {longest} codes, more than max_length = {spec.max_length}")
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

    def __getitem__(
        self, index: SupportsIndex | slice | Sequence | Int[Tensor, " n"] | Bool[Tensor, " b"] | np.ndarray
    ) -> Codes:
        """The codes of some images, in the order asked for; one number gives a batch of one.

        Raises:
            IndexError: A number outside the batch, or a mask of another length.
            TypeError: Something else than a number, a slice, a row of numbers, or a mask.
        """
        chosen = _chosen(index, len(self)).to(self.device)
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

        theirs = other._values()
        return all(same(value, theirs[name]) for name, value in self._values().items())

    def _map(self, function) -> Codes:
        return replace(
            self, **{name: None if value is None else function(value) for name, value in self._values().items()}
        )

    def _values(self) -> dict[str, Tensor | None]:
        return {name: getattr(self, name) for name in ("ids", "lengths", "grains", "labels")}

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


# They hold tensors and nothing else: `torch.load(…, weights_only=True)` may give back what `torch.save` was given.
torch.serialization.add_safe_globals([Codes])


def _chosen(index: object, count: int) -> Int[Tensor, " n"]:
    """The numbers of the images of a batch that an index means, all of them from 0 to count - 1."""
    every = torch.arange(count)
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.long)  # torch knows no negative steps
    try:
        index = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):  # whatever torch says of what it makes no tensor of
        if isinstance(index, SupportsIndex):  # a number of more than 64 bits
            raise IndexError(f"image {index} of a batch of {count}") from None
        raise _no_index(index) from None
    if not index.numel() and index.dim() == 1:
        return every[:0]  # an empty list is of floats
    if index.dtype == torch.bool and index.dim() == 1:
        if len(index) != count:
            raise IndexError(f"a mask of {len(index)} for a batch of {count}")
        return every[index.cpu()]
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool or index.dim() > 1:
        raise _no_index(index)
    numbers = index.long().cpu().reshape(-1)
    outside = (numbers < -count) | (numbers >= count)
    if index.dtype == torch.uint64:  # numbers of 2⁶³ and more come out as negative ones
        outside |= numbers < 0
    if outside.any():
        raise IndexError(f"image {index.reshape(-1)[int(outside.int().argmax())].item()} of a batch of {count}")
    return every[numbers]


def _no_index(index: object) -> TypeError:
    return TypeError(
        f"codes take the number of an image, a slice, a row of numbers, or a mask of booleans, not {index}"
    )


def _bounds(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value; 0 where there is none."""
    return values.long().aminmax() if values.numel() else (values.new_zeros(()), values.new_zeros(()))


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
