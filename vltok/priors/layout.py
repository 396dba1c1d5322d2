"""Where codes may lie: the cells of every granularity's position map, and which region each belongs to.

Axis letters: b image, p place of any granularity's position map (all granularities' places one after another, from
coarse to fine), r region, k granularity, i place inside a region (those of all granularities, likewise).
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vltok.code_maps import first_id, for_each_id, require_ids
from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError

# What stands at a place that has no code: for each id, where codes have several.
FREE = -1


class Layout(nn.Module):
    """The places of a grid of regions, and codes laid out at them. Its buffers move with the model but are no part of
    its state: they follow from the spec.

    Args:
        spec: What the codes may be; its grid of regions must be known.

    Raises:
        UserError: The spec has no factors or no grid of regions.
    """

    #: The granularity of each place.
    granularity: Int[Tensor, " p"]
    #: The region in which each place lies, counted row by row.
    region: Int[Tensor, " p"]
    #: Which of its region's places each one is.
    inside: Int[Tensor, " p"]
    #: The first place of each granularity.
    offsets: Int[Tensor, " k"]
    #: The first of a region's places of each granularity.
    inside_offsets: Int[Tensor, " k"]
    #: How many codes a region of each granularity has.
    costs: Int[Tensor, " k"]
    #: The places of each region: from coarse to fine, row by row.
    of_region: Int[Tensor, "r i"]

    def __init__(self, spec: CodeSpec) -> None:
        super().__init__()
        if not spec.gridded:
            raise UserError("this prior needs codes on a grid: give the tokenizer's factors")
        self.spec = spec
        granularities = range(spec.granularities)
        sizes = [spec.positions(granularity) for granularity in granularities]
        self.count = sum(sizes)
        self.regions = sizes[0]
        self.insides = sum(spec.codes_per_region)
        region = torch.cat([_regions_of_places(spec, granularity) for granularity in granularities])
        # a stable sort leaves the places of a region as they follow one another
        by_region = region.argsort(stable=True)
        buffers = {
            "granularity": torch.cat([torch.full((sizes[granularity],), granularity) for granularity in granularities]),
            "region": region,
            "inside": by_region.argsort() % self.insides,
            "offsets": torch.tensor([0, *sizes[:-1]]).cumsum(0),
            "inside_offsets": torch.tensor([0, *spec.codes_per_region[:-1]]).cumsum(0),
            "costs": torch.tensor(spec.codes_per_region),
            "of_region": by_region.view(self.regions, self.insides),
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def lay(self, codes: Codes) -> Int[Tensor, "b p *q"]:
        """Codes at their places, `FREE` elsewhere.

        Raises:
            UserError: The codes lie on no grid, or on one of another size than the spec's, or have another number of
                ids.
        """
        grains = require_grid(codes, self.spec)
        taken = for_each_id(grains.flatten(1)[:, self.region] == self.granularity, self.spec)
        return torch.full_like(taken, FREE, dtype=torch.long).masked_scatter(taken, require_ids(codes.ids, self.spec))

    def empty(self, images: int, places: int | None = None) -> Int[Tensor, "b p *q"]:
        """Places without codes.

        Args:
            images: For how many images.
            places: How many, where they are not all.
        """
        size = (images, self.count if places is None else places, *self.spec.id_shape)
        return self.region.new_full(size, FREE)

    def collect(self, laid: Int[Tensor, "b p *q"]) -> Codes:
        """The codes that stand at places; every region must be covered by exactly one granularity."""
        taken = first_id(laid, self.spec) != FREE
        grains = laid.new_zeros(len(laid), self.regions).scatter_reduce(
            1, self.region.expand_as(taken), self.granularity * taken, "amax"
        )
        return Codes(laid[taken], taken.sum(1), grains.unflatten(1, self.spec.grid))


def require_grid(codes: Codes, spec: CodeSpec) -> Int[Tensor, "b h w"]:
    """The grain maps of codes.

    Raises:
        UserError: The codes lie on no grid, or on one of another size than the spec's.
    """
    grains = codes.require_grains()
    if tuple(grains.shape[1:]) != spec.regions:
        raise UserError(
            f"these codes have grids of {grains.shape[1]} × {grains.shape[2]} regions, but the prior is built for "
            f"{spec.regions}: set its `regions` to the codes'"
        )
    return grains


def _regions_of_places(spec: CodeSpec, granularity: int) -> Int[Tensor, " n"]:
    """The region in which each place of a position map lies."""
    height, width = spec.grid
    side = spec.sides[granularity]
    rows = torch.arange(height * side) // side
    columns = torch.arange(width * side) // side
    return (rows[:, None] * width + columns).flatten()
