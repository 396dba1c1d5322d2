"""Codes as one flat sequence of tokens, which any language model reads, and back again.

On a grid of regions, regions follow one another row by row. Each starts with the token of its granularity, and its
codes follow row by row; how many there are the granularity says, so that nothing needs an end. Here the second of four
regions is fine:

```
┌─────┬──┬──┐
│     │ 3│ 1│
│  7  ├──┼──┤
│     │ 4│ 1│      ⟨start⟩ ⟨coarse⟩ 7 ⟨fine⟩ 3 1 4 1 ⟨coarse⟩ 5 ⟨coarse⟩ 9
├─────┼──┴──┤
│  5  │  9  │
└─────┴─────┘
```

Codes on no grid stand as they are, and then comes an end:

```
                    ⟨start⟩ 7 3 1 4 1 5 9 ⟨end⟩
```

The vocabulary has the codebook's entries first, then the tokens of structure (the granularities from coarse to fine, or
⟨end⟩), then ⟨start⟩, or one for each class:

```
0 … v-1 | v … v+m-1 | v+m …
codes     structure   starts
```

At every step the sequence makes a **choice** between 1 + m: 0 goes on with a code, j takes the j-th token of structure.
Which choices are legal follows from how often each was taken before, and from nothing else (`Grammar`).

Axis letters: b image, t token, m token of structure, k granularity, r region, i place inside a region, v code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vltok.codes import Codes, CodeSpec
from vltok.drawing.config import VariableLengthSampling
from vltok.errors import UserError
from vltok.priors.lengths import RasterPlan


@dataclass(frozen=True, eq=False)
class Sequences:
    """The tokens of a batch, without their starts.

    Attributes:
        tokens: Filled up at the right with zeros, `[b t]`.
        present: Where the tokens of an image are, `[b t]`.
    """

    tokens: Int[Tensor, "b t"]
    present: Bool[Tensor, "b t"]

    @classmethod
    def of(cls, tokens: Int[Tensor, "b n"], chosen: Bool[Tensor, "b n"]) -> Sequences:
        """The chosen ones of some tokens, moved together."""
        lengths = chosen.sum(1)
        present = torch.arange(int(lengths.max()), device=tokens.device) < lengths[:, None]
        return cls(torch.zeros_like(present, dtype=torch.long).masked_scatter(present, tokens[chosen]), present)


class Grammar(ABC):
    """Which choices may follow; those that meet a length which was asked for are fewer."""

    @abstractmethod
    def legal(self, counts: Int[Tensor, "n c"]) -> Bool[Tensor, "n c"]:
        """Which choices are legal after each was taken so many times; none where an image is complete."""


class Serialization(nn.Module, ABC):
    """Turns codes into sequences and back.

    Attributes:
        codebook_size: The number of codes, v.
        structures: The number of tokens of structure, m.
        structures_per_image: How many of them an image has.
        longest: The most tokens that an image has, its start left out.
    """

    codebook_size: int
    structures: int
    structures_per_image: int
    longest: int

    @abstractmethod
    def forward(self, codes: Codes) -> Sequences:
        """The sequences of codes.

        Raises:
            UserError: Codes that the spec does not allow.
        """

    @abstractmethod
    def codes(self, tokens: Int[Tensor, "b t"]) -> Codes:
        """The codes of whole sequences; tokens of starts are passed over, wherever they stand."""

    @abstractmethod
    def grammar(self, sampling: VariableLengthSampling) -> Grammar:
        """What may be drawn.

        Raises:
            UserError: A length that no image can have.
        """

    def choices(self, tokens: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """The choice that each token is; beyond the last choice for starts."""
        return (tokens - (self.codebook_size - 1)).clamp(min=0)

    def taken(self, tokens: Int[Tensor, "*n"]) -> Int[Tensor, "*n c"]:
        """The choice that each token is, one-hot; none for starts."""
        every = torch.arange(1 + self.structures, device=tokens.device)
        return (self.choices(tokens)[..., None] == every).long()

    def choice_logits(self, logits: Float[Tensor, "n v"]) -> Float[Tensor, "n c"]:
        """The logits of choices, from those of tokens: that of going on is the sum over all codes."""
        goes_on = logits[:, : self.codebook_size].logsumexp(dim=1, keepdim=True)
        return torch.cat([goes_on, logits[:, self.codebook_size : self.codebook_size + self.structures]], dim=1)


class GriddedSerialization(Serialization):
    """That of codes on a grid of regions, in raster order.

    Args:
        spec: What the codes may be; its grid of regions must be known.
    """

    #: The place of a granularity's i-th code in the square of finest cells that a region is.
    cells: Int[Tensor, "k i"]
    #: Whether a granularity has an i-th code.
    filled: Bool[Tensor, "k i"]

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.codebook_size = spec.codebook_size
        self.structures = spec.granularities
        self.structures_per_image = spec.positions(0)
        self.longest = self.structures_per_image + spec.longest_length
        finest = spec.sides[-1]
        cells = torch.zeros(spec.granularities, finest**2, dtype=torch.long)
        for granularity, side in enumerate(spec.sides):
            corners = torch.arange(side) * (finest // side)
            cells[granularity, : side**2] = (corners[:, None] * finest + corners).flatten()
        filled = torch.arange(finest**2) < torch.tensor(spec.codes_per_region)[:, None]
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("filled", filled, persistent=False)

    def forward(self, codes: Codes) -> Sequences:
        """The sequences of codes.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's.
        """
        grains = codes.require_grains().long()
        if tuple(grains.shape[1:]) != self.spec.regions:
            raise UserError(
                f"these codes have grids of {grains.shape[1]} × {grains.shape[2]} regions, but the prior is built for "
                f"{self.spec.regions}: set its `regions` to the codes'"
            )
        grains = grains.flatten(1)
        finest = self.spec.sides[-1]
        of_regions = codes.to_code_map(self.spec).long().unflatten(1, (-1, finest)).unflatten(3, (-1, finest))
        of_regions = of_regions.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
        contents = of_regions.gather(2, self.cells[grains])
        opening = self.codebook_size + grains[:, :, None]
        chosen = torch.cat([torch.ones_like(opening, dtype=torch.bool), self.filled[grains]], dim=2)
        return Sequences.of(torch.cat([opening, contents], dim=2).flatten(1), chosen.flatten(1))

    def codes(self, tokens: Int[Tensor, "b t"]) -> Codes:
        """The codes of whole sequences; tokens of starts are passed over, wherever they stand."""
        height, width = self.spec.regions
        finest = self.spec.sides[-1]
        opens = (tokens >= self.codebook_size) & (tokens < self.codebook_size + self.structures)
        grains = (tokens[opens] - self.codebook_size).view(len(tokens), height * width)
        code = tokens < self.codebook_size
        image, step = code.nonzero(as_tuple=True)
        region = opens.cumsum(1)[image, step] - 1
        # a code's place inside its region: its number among the image's codes less those of the regions before
        lengths = self.filled.sum(1)[grains]
        before = lengths.cumsum(1) - lengths
        inside = code.cumsum(1)[image, step] - 1 - before[image, region]
        cell = self.cells[grains[image, region], inside]
        of_regions = tokens.new_zeros(len(tokens), height * width, finest**2)
        of_regions[image, region, cell] = tokens[code]
        code_map = of_regions.view(-1, height, width, finest, finest).permute(0, 1, 3, 2, 4)
        code_map = code_map.reshape(-1, height * finest, width * finest)
        return Codes.from_code_map(code_map, grains.view(-1, height, width), self.spec)

    def grammar(self, sampling: VariableLengthSampling) -> GriddedGrammar:
        """What may be drawn.

        Raises:
            UserError: A length that no image can have.
        """
        return GriddedGrammar(RasterPlan.of(sampling, self.spec, self.cells.device))


@dataclass(frozen=True, eq=False)
class GriddedGrammar(Grammar):
    """A region opens with a granularity, and then has its codes.

    Attributes:
        plan: Which granularities leave the length within reach.
    """

    plan: RasterPlan

    def legal(self, counts: Int[Tensor, "n c"]) -> Bool[Tensor, "n c"]:
        """Which choices are legal after each was taken so many times; none where an image is complete."""
        contents, regions = counts[:, :1], counts[:, 1:]
        full = (regions * self.plan.costs).sum(1, keepdim=True) == contents
        return torch.cat([~full, full & self.plan.choices(regions)], dim=1)


class FlatSerialization(Serialization):
    """That of codes on no grid: from one to `max_length` of them, and an end.

    Args:
        spec: What the codes may be; its `max_length` must be known.
    """

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__()
        self.codebook_size = spec.codebook_size
        self.most = spec.longest_length
        self.structures = 1
        self.structures_per_image = 1
        self.longest = self.most + 1

    def forward(self, codes: Codes) -> Sequences:
        """The sequences of codes.

        Raises:
            UserError: The codes lie on a grid, or an image has none or more than `max_length` of them.
        """
        if codes.grains is not None:
            raise UserError(
                "these codes lie on a grid, but the prior is built for none: set its `factors` and `regions`"
            )
        lengths = codes.lengths.long()
        steps = torch.arange(self.longest, device=codes.device)
        ends = steps == lengths[:, None]
        present = steps <= lengths[:, None]
        least, most = (int(length) for length in torch.stack(lengths.aminmax()))
        if not 1 <= least <= most <= self.most:
            raise UserError(
                f"these codes have from {least} to {most} codes an image, but the prior is built for 1 to {self.most}: "
                "set its `max_length`"
            )
        tokens = torch.full_like(ends, self.codebook_size, dtype=torch.long)
        return Sequences.of(tokens.masked_scatter(present & ~ends, codes.ids.long()), present)

    def codes(self, tokens: Int[Tensor, "b t"]) -> Codes:
        """The codes of whole sequences; tokens of starts are passed over, wherever they stand."""
        code = tokens < self.codebook_size
        return Codes(tokens[code], code.sum(1))

    def grammar(self, sampling: VariableLengthSampling) -> FlatGrammar:
        """What may be drawn.

        Raises:
            UserError: A length that no image can have.
        """
        if sampling.ratios is not None:
            raise UserError(f"ratios is {sampling.ratios}, but codes on no grid have no granularities: leave it out")
        for name in ("codes", "max_codes"):
            asked = getattr(sampling, name)
            if asked is not None and (asked < 1 or (name == "codes" and asked > self.most)):
                raise UserError(f"{name} is {asked}, but images have from 1 to {self.most} codes")
        if sampling.codes is not None:
            return FlatGrammar(sampling.codes, sampling.codes)
        return FlatGrammar(1, min(sampling.max_codes or self.most, self.most))


@dataclass(frozen=True)
class FlatGrammar(Grammar):
    """Codes, and then an end.

    Attributes:
        least: The fewest codes before the end.
        most: The most.
    """

    least: int
    most: int

    def legal(self, counts: Int[Tensor, "n c"]) -> Bool[Tensor, "n c"]:
        """Which choices are legal after each was taken so many times; none where an image is complete."""
        contents, ends = counts.unbind(1)
        return torch.stack([contents < self.most, contents >= self.least], dim=1) & (ends == 0)[:, None]


def serialization_of(spec: CodeSpec) -> Serialization:
    """The one that fits a spec.

    Raises:
        UserError: The spec leaves open how long sequences can be, or codes have several ids.
    """
    if spec.codebooks > 1:
        raise UserError(
            f"the codes have {spec.codebooks} ids each, and a language model reads one token for a code: give a prior "
            "that takes several, such as dq-transformer or raster-scan"
        )
    if spec.gridded and spec.regions is None:
        raise UserError(
            f"regions is missing: codes with the factors {list(spec.factors)} lie on a grid of rows and columns of "
            f"regions, the images' height and width over {spec.factors[0]}"
        )
    if not spec.gridded and spec.max_length is None:
        raise UserError("max_length is missing: give the most codes of an image, or factors and regions for a grid")
    return GriddedSerialization(spec) if spec.gridded else FlatSerialization(spec)
