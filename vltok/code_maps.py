"""Where packed codes lie on the finest grid.

Axis letters: b image, h w grid of regions, H W cells of the finest grid, t code (packed over the batch), q id of a code
(no axis where there is one codebook).
"""

from __future__ import annotations

import torch
from einops import repeat
from jaxtyping import Int, Shaped
from torch import Tensor

from vltok.code_spec import CodeSpec
from vltok.errors import UserError


def require_ids(ids: Int[Tensor, "t ..."], spec: CodeSpec) -> Int[Tensor, " t *q"]:
    """The ids of codes, in 64 bits.

    Raises:
        UserError: A code has another number of them than the spec says.
    """
    if ids.shape[1:] != spec.id_shape:
        found, built = (" ".join(["t", *map(str, shape)]) for shape in (ids.shape[1:], spec.id_shape))
        raise UserError(
            f"these codes have ids [{found}], but the prior is built for [{built}]: set its `codebooks` to the codes'"
        )
    return ids.long()


def for_each_id(values: Shaped[Tensor, "*n"], spec: CodeSpec) -> Shaped[Tensor, "..."]:
    """Values of codes, the same for each id of a code."""
    return values.view(*values.shape, *[1] * len(spec.id_shape)).expand(*values.shape, *spec.id_shape)


def first_id(ids: Shaped[Tensor, "..."], spec: CodeSpec) -> Shaped[Tensor, "..."]:
    """The first id of each code; that of a special token, or of a place without a code, tells what it is."""
    return ids if spec.codebooks == 1 else ids[..., 0]


def entries(ids: Int[Tensor, "*t"], spec: CodeSpec) -> Int[Tensor, "*t"]:
    """Which entry each id means, counted through all codebooks, one after another."""
    if spec.codebooks == 1:
        return ids
    return ids + torch.arange(spec.codebooks, device=ids.device) * spec.codebook_size


def replicated(grid: Shaped[Tensor, "b h w *q"], times: int) -> Shaped[Tensor, "b H W *q"]:
    """Each cell as times × times cells."""
    return repeat(grid, "b h w ... -> b (h down) (w across) ...", down=times, across=times)


def code_lengths(grains: Int[Tensor, "b h w"], spec: CodeSpec) -> Int[Tensor, " b"]:
    """The code length of each image."""
    # granularity by granularity: a table of the codes per region would have to be copied to the device
    return torch.stack(
        [(grains == granularity).sum(dim=(1, 2)) * codes for granularity, codes in enumerate(spec.codes_per_region)]
    ).sum(dim=0)


def code_slots(grains: Int[Tensor, "b h w"], spec: CodeSpec) -> tuple[Int[Tensor, "b H W"], Int[Tensor, " b"]]:
    """For each cell of the finest grid, which of the packed codes lies there; and the code length of each image."""
    lengths = code_lengths(grains, spec)
    # where the codes of the granularity at hand start, in each image
    start = lengths.cumsum(0) - lengths
    slots = torch.zeros_like(replicated(grains, spec.sides[-1]), dtype=torch.long)
    for granularity, side in enumerate(spec.sides):
        here = replicated(grains == granularity, side)
        flat = here.flatten(1).long()
        rank = (flat.cumsum(1) - flat).view(here.shape) + start[:, None, None]
        times = spec.sides[-1] // side
        slots = torch.where(replicated(here, times), replicated(rank, times), slots)
        start = start + flat.sum(1)
    return slots, lengths


def top_left(
    code_map: Int[Tensor, "b H W *q"], grains: Int[Tensor, "b h w"], spec: CodeSpec
) -> Int[Tensor, "b H W *q"]:
    """Every cell takes the value at the top left of the square that its code covers."""
    finest = for_each_id(replicated(grains, spec.sides[-1]), spec)
    result = code_map
    for granularity, side in enumerate(spec.sides):
        step = spec.sides[-1] // side
        result = torch.where(finest == granularity, replicated(code_map[:, ::step, ::step], step), result)
    return result


def code_granularities(grains: Int[Tensor, "b h w"], codes: int, spec: CodeSpec) -> Int[Tensor, " t"]:
    """The granularity of each of so many packed codes."""
    return _at_codes(replicated(grains, spec.sides[-1]), grains, codes, spec)


def code_positions(grains: Int[Tensor, "b h w"], codes: int, spec: CodeSpec) -> Int[Tensor, " t"]:
    """The place of each of so many packed codes in the position map of its granularity, counted row by row."""
    height, width = grains.shape[1:]
    finest = replicated(grains, spec.sides[-1])
    places = torch.zeros_like(finest)
    for granularity, side in enumerate(spec.sides):
        numbers = torch.arange(height * width * side**2, device=grains.device).view(1, height * side, width * side)
        places = torch.where(finest == granularity, replicated(numbers, spec.sides[-1] // side), places)
    return _at_codes(places, grains, codes, spec)


def _at_codes(
    cells: Int[Tensor, "b H W"], grains: Int[Tensor, "b h w"], codes: int, spec: CodeSpec
) -> Int[Tensor, " t"]:
    """What a map of the finest grid holds at each of so many packed codes."""
    slots, _ = code_slots(grains, spec)
    result = cells.new_zeros(codes, dtype=torch.long)
    result[slots.flatten()] = cells.long().flatten()
    return result
