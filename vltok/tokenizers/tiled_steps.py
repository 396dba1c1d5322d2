"""The tiles of one picture, which share its codes.

Axis letters: n step.
"""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vltok.codes import Codes, Ratios
from vltok.interfaces import Candidates, Proportioned


class TiledSteps:
    """What the tiles of a picture could be encoded to together: the steps of all in one order, by what they gain.

    As `Candidates` of a batch of one, which gives the codes of each tile.

    Args:
        tiles: What each could be encoded to, a batch of one.
    """

    def __init__(self, tiles: Sequence[Candidates]) -> None:
        self._tiles = tiles

    @property
    def own(self) -> list[Codes]:
        """What the tokenizer chooses itself."""
        return [tile.own for tile in self._tiles]

    @functools.cached_property
    def lengths(self) -> Int[Tensor, "1 _"]:
        """The code length of the picture after no step, one step, and so on."""
        added = torch.cat([tile.lengths.diff(dim=1) for tile in self._tiles], dim=1)[:, self._order]
        fewest = torch.stack([tile.lengths[:, 0] for tile in self._tiles]).sum(dim=0)
        return fewest + torch.nn.functional.pad(added.cumsum(1), (1, 0))

    @property
    def scores(self) -> Float[Tensor, "1 n"]:
        """What each step gains for a code; they never rise."""
        return torch.cat([tile.scores for tile in self._tiles], dim=1)[:, self._order]

    def after(self, steps: Int[Tensor, " 1"]) -> list[Codes]:
        """The codes of each tile after so many steps of the picture."""
        return [tile.after(count) for tile, count in zip(self._tiles, self._counts(steps), strict=True)]

    def above(self, threshold: float) -> list[Codes]:
        """The codes of each tile after the steps that score more than a threshold."""
        return [tile.above(threshold) for tile in self._tiles]

    def within(self, most: Int[Tensor, " 1"]) -> list[Codes]:
        """The best codes of at most this number in all, as many as there can be."""
        steps = (self.lengths[:, 1:] <= most[:, None]).sum(dim=1)
        left = most - self.lengths.gather(1, steps[:, None])[:, 0]
        found = []
        for tile, count in zip(self._tiles, self._counts(steps), strict=True):
            length = tile.lengths.gather(1, count[:, None])[:, 0]
            # where the next step costs more than what is left, a tile may still find use for it
            found.append(tile.within(length + left))
            left = left - (found[-1].lengths - length)
        return found

    def at(self, ratios: Ratios) -> list[Codes]:
        """The best codes of each tile at these shares of granularities."""
        found = []
        for tile in self._tiles:
            assert isinstance(tile, Proportioned)
            found.append(tile.at(ratios))
        return found

    @functools.cached_property
    def _order(self) -> Int[Tensor, " n"]:
        """The steps of all tiles, one tile after another, as the picture takes them."""
        if len(self._tiles) == 1:  # whose order is known, and whose scores may cost much
            return torch.arange(self._tiles[0].lengths.shape[1] - 1, device=self._tiles[0].lengths.device)
        return torch.cat([tile.scores for tile in self._tiles], dim=1)[0].argsort(descending=True, stable=True)

    def _counts(self, steps: Int[Tensor, " 1"]) -> list[Int[Tensor, " 1"]]:
        """How many of its steps each tile takes."""
        ranks = torch.empty_like(self._order).scatter(
            0, self._order, torch.arange(len(self._order), device=steps.device)
        )
        taken = (ranks < steps).split([tile.lengths.shape[1] - 1 for tile in self._tiles])
        return [each.sum(dim=0, keepdim=True) for each in taken]
