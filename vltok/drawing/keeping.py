"""What of an image stays while a prior draws the rest anew.

Axis letters: h w grid of regions, r region, p place of any granularity's position map (all granularities' places one
after another, from coarse to fine), q id of a code (no axis where there is one codebook).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vltok.code_maps import code_slots, replicated
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError


@dataclass(frozen=True, eq=False)
class Kept:
    """What of an image stays. A region whose codes stay keeps its granularity.

    Attributes:
        codes: The image's, a batch of one on a grid.
        contents: The regions whose codes stay, `[h w]`.
        grains: The regions whose granularity stays, `[h w]`.

    Raises:
        UserError: Several images, codes on no grid, or regions of another grid.
    """

    codes: Codes
    contents: Bool[Tensor, "h w"]
    grains: Bool[Tensor, "h w"]

    def __post_init__(self) -> None:
        grid = tuple(self.codes.require_grains().shape)
        for regions in (self.contents, self.grains):
            if grid != (1, *regions.shape):
                raise UserError(f"one image of {tuple(regions.shape)} regions is kept, not {grid[0]} of {grid[1:]}")
        object.__setattr__(self, "grains", self.grains | self.contents)

    @classmethod
    def regions(cls, codes: Codes, regions: Bool[Tensor, "h w"]) -> Kept:
        """Some regions of an image."""
        return cls(codes, regions, regions)

    @classmethod
    def grain_map(cls, grains: Int[Tensor, "h w"], spec: CodeSpec) -> Kept:
        """The granularity of every region, and no code.

        Raises:
            UserError: A granularity that the spec does not have.
        """
        if not ((grains >= 0) & (grains < spec.granularities)).all():
            raise UserError(f"the grain map holds a granularity outside 0…{spec.granularities - 1}")
        length = torch.tensor(spec.codes_per_region)[grains.cpu().long()].sum()[None]
        codes = Codes(torch.zeros(int(length), *spec.id_shape, dtype=torch.long), length, grains.cpu()[None])
        every = torch.ones_like(codes.require_grains()[0], dtype=torch.bool)
        return cls(codes, ~every, every)

    def to(self, device: torch.device | str) -> Kept:
        """The same on a device."""
        return replace(
            self, codes=self.codes.to(device), contents=self.contents.to(device), grains=self.grains.to(device)
        )

    @property
    def digest(self) -> str:
        """What tells it from others, in hexadecimal digits."""
        parts = (self.codes.ids, self.codes.require_grains(), self.contents, self.grains)
        return hashlib.sha256(b"".join(part.cpu().long().numpy().tobytes() for part in parts)).hexdigest()

    @property
    def granularities(self) -> Int[Tensor, " r"]:
        """The granularity of each region, row by row; −1 where it does not stay."""
        return self.codes.require_grains()[0].long().where(self.grains, -1).flatten()

    def laid(self, spec: CodeSpec) -> Int[Tensor, " p *q"]:
        """The code of each place; −1 where none stays."""
        slots, _ = code_slots(self.codes.require_grains(), spec)
        stays = torch.zeros(len(self.codes.ids), dtype=torch.bool, device=self.codes.device)
        stays[slots.flatten()] = replicated(self.contents[None], spec.sides[-1]).flatten()
        counts = [math.prod(spec.grid) * codes for codes in spec.codes_per_region]
        offsets = torch.tensor([0, *counts[:-1]], device=stays.device).cumsum(0)
        places = offsets[self.codes.granularities(spec)] + self.codes.positions(spec)
        laid = torch.full((sum(counts), *spec.id_shape), -1, device=stays.device)
        return laid.index_put((places[stays],), self.codes.ids.long()[stays])
