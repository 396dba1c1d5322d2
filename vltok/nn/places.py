"""Embeddings of the places of any grid, made of rows and columns, where a table would know one grid alone.

Axis letters: b image, n token, p place of a position map, f number that tells a place, d model width, r row of a table,
k granularity, v position and special token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vltok.code_spec import CodeSpec
from vltok.nn.heads import LOGITS_AT_ONCE, Head
from vltok.nn.linear import Linear

# From half a region to 256: doubled ten times.
_WAVELENGTHS = tuple(2.0**power for power in range(-1, 9))
#: How many numbers tell a place, and how many a step.
PLACE_FEATURES, STEP_FEATURES = 4 * 2 * len(_WAVELENGTHS), 2 * len(_WAVELENGTHS)
# The steps of an image are laid along so many regions.
_STEPS_SPAN = 128.0


def place_features(spec: CodeSpec, granularity: int) -> Float[Tensor, "p f"]:
    """What tells the places of a position map, row by row: waves of how far, in regions, the middle of each lies from
    the top, the left, the bottom and the right of the grid."""
    rows, columns = spec.grid
    side = spec.sides[granularity]
    down, across = ((torch.arange(count * side) + 0.5) / side for count in (rows, columns))
    y, x = (axis.flatten() for axis in torch.meshgrid(down, across, indexing="ij"))
    return _waves(torch.stack([y, x, rows - y, columns - x], dim=1))


def step_features(count: int) -> Float[Tensor, "p f"]:
    """What tells each of so many steps: waves of the share of them that has been taken.

    Counted so, the steps of a larger image than was ever seen are none that are new.
    """
    return _waves(((torch.arange(count) + 0.5) / count * _STEPS_SPAN)[:, None])


def _waves(lengths: Float[Tensor, "p n"]) -> Float[Tensor, "p f"]:
    # in double precision first: the last digit of a sine in single precision differs between CPUs, and files that were
    # written under a prior are read on others
    angles = 2 * math.pi * lengths.double()[:, :, None] / torch.tensor(_WAVELENGTHS, dtype=torch.float64)
    waves = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).float()
    # so large that what fresh weights, of 0.02, make of them is about 1, where GELU bends most
    return waves / (0.02 * math.sqrt(waves.shape[1] / 2))


class Rows(nn.Module):
    """A table of embeddings that is made, where `nn.Embedding` has one that is learned.

    Args:
        weight: Its rows.
    """

    weight: Float[Tensor, "r d"]

    def __init__(self, weight: Float[Tensor, "r d"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The rows of some ids."""
        return F.embedding(ids, self.weight)


class PlaceTable(nn.Module):
    """Makes a table for the places of any grid: a small network turns what tells a place into its row.

    A linear map would not do: what it makes of a place is a sum of what it makes of its row and of its column, so that
    no product with it could be large at one place alone.

    Args:
        width: Model width.
        features: How many numbers tell a place.
        kinds: How many kinds of places there are, such as granularities.
        others: How many rows that are learned follow the places of each kind, for what lies nowhere.
    """

    def __init__(self, width: int, features: int = PLACE_FEATURES, kinds: int = 1, others: int = 0) -> None:
        super().__init__()
        self.kinds = nn.Embedding(kinds, width)
        self.inner = Linear(features, width, bias=False)
        self.outer = Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        # as large as fresh rows that are learned: larger ones would drown what they are added to
        nn.init.constant_(self.norm.weight, 0.02)
        self.others = nn.Embedding(kinds * others, width) if others else None

    def forward(self, maps: Sequence[Float[Tensor, "_ f"]]) -> Rows:
        """The table of some position maps, one after another.

        Args:
            maps: What tells the places of each, kind by kind; where there is one kind, all are of that.
        """
        kinds, rows = len(self.kinds.weight), list[Tensor]()
        for place, features in enumerate(maps):
            kind = place % kinds
            rows.append(self.norm(self.outer(F.gelu(self.inner(features) + self.kinds.weight[kind]))))
            if self.others is not None:
                rows.append(self.others.weight.chunk(kinds)[kind])
        return Rows(torch.cat(rows))


class PositionHead(Head):
    """A head for positions that has a logit for each place of one grid: granularities share them."""

    def position_logits(self, hidden: Float[Tensor, "n d"], granularities: Int[Tensor, " n"]) -> Float[Tensor, "n v"]:
        """The logits of the next position, in the ids of its granularity."""
        return self(hidden)

    def position_nats(
        self, hidden: Float[Tensor, "n d"], positions: Int[Tensor, " n"], granularities: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """What each next position costs. See `Head.nats`."""
        return self.nats(hidden, positions)


class PlaceHead(nn.Module):
    """A head for the positions of any grid: each place and each special token has a key, made as embeddings are, and
    its logit is the product of that with what a hidden state asks for.

    Args:
        width: Model width.
        granularities: How many there are.
        others: How many special tokens a position track has.
        norm: Makes the norm of a width.
    """

    def __init__(
        self, width: int, granularities: int, others: int, norm: Callable[[int], nn.Module] = nn.LayerNorm
    ) -> None:
        super().__init__()
        self.norm = norm(width)
        self.query = Linear(width, width, bias=False)
        self.keys = PlaceTable(width, kinds=granularities, others=others)
        self.key_norm = norm(width)

    def forward(self, maps: Sequence[Float[Tensor, "_ f"]], sizes: Int[Tensor, " k"], most: int) -> PlaceKeys:
        """The head for the positions of a grid.

        Args:
            maps: What tells the places of each granularity.
            sizes: How many ids of positions and special tokens each granularity has.
            most: The most of them.
        """
        # of one size, so that no place is likelier than others to begin with
        keys = self.key_norm(self.keys(maps).weight) / math.sqrt(self.query.out_features)
        return PlaceKeys(self.norm, self.query, keys, sizes, most)


class PlaceKeys(nn.Module):
    """A head for the positions of one grid.

    Args:
        norm: Of hidden states.
        query: Gives what a hidden state asks for.
        keys: Those of each granularity's places and special tokens, one granularity after another.
        sizes: How many keys each granularity has.
        most: The most of them.
    """

    keys: Float[Tensor, "r d"]
    sizes: Int[Tensor, " k"]

    def __init__(
        self, norm: nn.Module, query: nn.Module, keys: Float[Tensor, "r d"], sizes: Int[Tensor, " k"], most: int
    ) -> None:
        super().__init__()
        self.norm = norm
        self.query = query
        self.most = most
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("sizes", sizes, persistent=False)

    def position_logits(self, hidden: Float[Tensor, "n d"], granularities: Int[Tensor, " n"]) -> Float[Tensor, "n v"]:
        """The logits of the next position, in the ids of its granularity; -inf where it has fewer."""
        asked = self.query(self.norm(hidden))
        logits = asked.to(self.keys.dtype) @ self.keys.T
        ids = torch.arange(self.most, device=hidden.device)
        first = (self.sizes.cumsum(0) - self.sizes)[granularities]
        columns = (first[:, None] + ids).clamp(max=len(self.keys) - 1)
        return logits.gather(1, columns).masked_fill(ids >= self.sizes[granularities][:, None], -torch.inf)

    def position_nats(
        self, hidden: Float[Tensor, "n d"], positions: Int[Tensor, " n"], granularities: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """What each next position costs, −ln p, in single precision, so many at a time as `Head.nats`."""
        given = hidden, positions, granularities
        rows = max(LOGITS_AT_ONCE // len(self.keys), 1)
        if len(hidden) <= rows:
            return self._nats(*given)
        parts = zip(*(values.split(rows) for values in given), strict=True)
        return torch.cat([checkpoint(self._nats, *part, use_reentrant=False) for part in parts])

    def _nats(self, hidden: Tensor, positions: Tensor, granularities: Tensor) -> Tensor:
        return F.cross_entropy(self.position_logits(hidden, granularities).float(), positions, reduction="none")
