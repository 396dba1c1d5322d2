"""Codes under the probabilities of a prior."""

from __future__ import annotations

import binascii
import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vltok.codes import Codes
from vltok.compression.coders import Coder, DecodedTile, Grid
from vltok.compression.coding import Alphabet, Decoder, Encoder
from vltok.compression.frequencies import likely
from vltok.compression.header import PRIOR
from vltok.errors import UserError
from vltok.interfaces import AnyGrid, Codable, Prior


class PriorCoder(Coder):
    """Codes under a prior: each choice under the probabilities that it has after those before.

    Both directions take the same steps: one image at a time, in double precision, on one thread of the CPU. With the
    same versions of vltok and PyTorch and the same kind of processor the probabilities are the same bits, whatever
    process or number of threads asks. Elsewhere the last digits of logits may differ, which rounding hides (`likely`),
    but for about one file in 10⁶; a check of its codes then tells so.

    Args:
        prior: It is left as it is.
        fingerprint: In hexadecimal digits.

    Raises:
        UserError: It does not tell its choices, or draws only images of a class.
    """

    kind = PRIOR

    def __init__(self, prior: Prior, fingerprint: str) -> None:
        if not isinstance(prior, Codable):
            raise UserError(
                f"{type(prior).__name__} does not tell the probabilities of its choices one by one, which an entropy "
                "coder needs: compress without --prior, or under one of dq-transformer, raster-scan, global-local and "
                "sequence"
            )
        if prior.classes is not None and not prior.conditioning.label_dropout:
            raise UserError(
                f"the prior knows {prior.classes} classes, and not what images are like whose class is not told: give "
                "one that was trained without classes, or with a label_dropout above 0"
            )
        self.name = fingerprint
        #: Those of every tile; None where they may be any, or codes lie on no grid.
        self.regions = prior.spec.regions
        self._prior = cast(Prior, copy.deepcopy(prior).cpu().double().eval())
        self._of_grids: dict[Grid, Codable] = {}

    def encode(self, tiles: Sequence[Codes]) -> list[bytes]:
        """The sections of tiles. See `Coder.encode`.

        Raises:
            UserError: The prior cannot make such codes.
        """
        encoders = [Encoder()]
        for tile in tiles:
            grid = None if tile.grains is None else (tile.grains.shape[1], tile.grains.shape[2])
            prior = self._of(grid)
            known = iter(prior.choices(tile))

            def choose(logits: Float[Tensor, " n"], section: int, known: Iterator[int] = known) -> int:
                while len(encoders) <= section:
                    encoders.append(Encoder())
                chosen = next(known)
                possible, alphabet = _possible(logits)
                if not possible[chosen]:
                    raise UserError("the prior cannot make such codes")
                encoders[section].add(possible[:chosen].sum()[None], alphabet)
                return chosen

            with _one_thread():
                prior.walk(choose)
        return [encoder.finish() for encoder in encoders]

    def decode(self, sections: Sequence[bytes], grids: Sequence[Grid], rest: bytes = b"") -> list[DecodedTile]:
        """The tiles of sections; a part of one tells nothing. See `Coder.decode`.

        Raises:
            UserError: They are no such sections, the first is cut, or they are of tiles of another size than the
                prior's images.
        """
        if not sections:
            raise UserError("it is cut within the first codes that a prior models, of which a part tells nothing")
        decoders = [Decoder(section) for section in sections]

        def choose(logits: Float[Tensor, " n"], section: int) -> int | None:
            if section >= len(decoders):
                return None
            possible, alphabet = _possible(logits)
            return int(possible.nonzero()[0][decoders[section].take_one(alphabet)])

        tiles = []
        for grid in grids:
            prior = self._of(grid)
            with _one_thread():
                codes, known = prior.walk(choose)
            tiles.append(DecodedTile(codes, None if known.all() else known))
        return tiles

    def _of(self, grid: Grid) -> Codable:
        """The prior of the tiles of a grid.

        Raises:
            UserError: It models no such tiles.
        """
        if grid not in self._of_grids:
            prior = self._prior
            if isinstance(prior, AnyGrid) and prior.spec.any_grid and grid is not None:
                with torch.no_grad(), _one_thread():
                    prior = prior.on_grid(grid)
            elif grid != self.regions:
                raise UserError(f"its tiles have {grid} regions, and images of the prior {self.regions}")
            self._of_grids[grid] = cast(Codable, prior)
        return self._of_grids[grid]

    def check(self, tiles: Sequence[Codes]) -> bytes:
        """The CRC-16 of the codes."""
        value = 0
        for tile in tiles:
            for part in (tile.ids, tile.require_grains() if tile.grains is not None else tile.lengths):
                value = binascii.crc_hqx(part.numpy().astype("<i4").tobytes(), value)
        return value.to_bytes(2, "big")


def _possible(logits: Float[Tensor, " n"]) -> tuple[np.ndarray, Alphabet]:
    """Which choices there are, and the alphabet of those."""
    values = logits.numpy()
    possible = values != -np.inf
    return possible, Alphabet(likely(values[possible]))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread inside the block: sums of several end in other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
