"""One picture of any size as the bytes of a file, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.compression.coders import Coder, DecodedTile
from vltok.compression.file_format import VltFile, pack
from vltok.compression.header import Header, named
from vltok.errors import UserError
from vltok.interfaces import FixedSize, Steerable, Tokenizer
from vltok.measures.pixels import to_bytes, to_unit_range
from vltok.nn.precision import computing
from vltok.pictures.decoding import MOST_PIXELS
from vltok.pictures.tiles import Tiling
from vltok.pictures.transforms import padded
from vltok.tokenizers.rate import RateEncoder, tiles_at

_PART = 1024


@dataclass(frozen=True, eq=False)
class PictureCoder:
    """Turns pictures into files, and files into pictures, in float32.

    Attributes:
        tokenizer: In evaluation mode, on `device`.
        fingerprint: The tokenizer's, in hexadecimal digits.
        device: Where it computes.
        size: The height and width in pixels of every tile, where what models the codes knows one size alone.
        rate: How many codes a picture gets; None for what the tokenizer chooses.
    """

    tokenizer: Tokenizer
    fingerprint: str
    device: torch.device | str
    size: tuple[int, int] | None = None
    rate: RateEncoder | None = None

    @torch.inference_mode()
    def compress(self, picture: UInt8[Tensor, "3 H W"], coder: Coder, tile: int) -> tuple[bytes, int]:
        """The bytes of a picture's file, and how many codes it has.

        Args:
            picture: Its pixels.
            coder: Of its codes.
            tile: The longest side, in pixels, that is coded at once; see `Tiling`.

        Raises:
            UserError: The tokenizer does not take pictures of this size, or gives no codes that fit its `spec`; or
                they have no such rate.
        """
        height, width = picture.shape[1:]
        tiling = self._tiling(height, width, tile)
        whole = padded(picture, *tiling.unit)
        with computing(self.device):
            found = tiles_at(self.tokenizer, self.rate, whole, list(tiling), (height, width), self.device)
            tiles = [codes.to("cpu").validate(self.tokenizer.spec) for codes in found]
        header = Header(
            named(self.fingerprint),
            coder.kind,
            named(coder.name),
            height,
            width,
            tiling.most if len(tiles) > 1 else 0,
            "" if self.rate is None else str(self.rate.rate),
            codes=coder.check(tiles),
        )
        return pack(header, coder.encode(tiles)), sum(int(codes.lengths.sum()) for codes in tiles)

    def stages(self, file: VltFile, coder: Coder) -> list[list[DecodedTile]]:
        """The codes of a file's tiles, as they grow: at each granularity, or as their number doubles.

        Args:
            file: It, or the beginning of it.
            coder: Of its codes.

        Raises:
            UserError: It is of another size than the tokenizer takes, its codes are damaged, or too few are there.
        """
        if self.tokenizer.spec.gridded:
            return [self.decode(file, coder, sections) for sections in range(1, len(file.sections) + 1)]
        tiles = self.decode(file, coder, len(file.sections))
        if not cuttable(self.tokenizer):
            return [tiles]
        stages = _doublings(max(int(tile.codes.lengths) for tile in tiles))
        return [[_beginning(tile, 1 << place) for tile in tiles] for place in range(stages)]

    def decode(self, file: VltFile, coder: Coder, sections: int) -> list[DecodedTile]:
        """The codes of a file's tiles.

        Args:
            file: It, or the beginning of it.
            coder: Of its codes.
            sections: How many of its sections to read, at least 1; where codes may be cut anywhere, none of a file
                whose only section is cut.

        Raises:
            UserError: It is of another size than the tokenizer takes, its codes are damaged, or too few are there.
        """
        spec = self.tokenizer.spec
        tiling = self._tiling_of(file)
        sides = [(down.stop - down.start, across.stop - across.start) for down, across in tiling]
        grids = [(high // spec.factors[0], wide // spec.factors[0]) if spec.gridded else None for high, wide in sides]
        tiles = coder.decode(file.sections[:sections], grids, file.rest)
        if sections == len(file.ends) and coder.check([tile.codes for tile in tiles]) != file.header.codes:
            raise UserError(
                "the prior gives other probabilities here than where it was compressed: use the versions of PyTorch "
                "and vltok, and a kind of processor, with which it was made"
            )
        return tiles

    @torch.inference_mode()
    def picture(self, file: VltFile, tiles: Sequence[DecodedTile]) -> UInt8[Tensor, "3 H W"]:
        """The pixels of a file's tiles; where regions are not known, colours pass smoothly between those that are.

        Raises:
            UserError: The tokenizer gives no numbers, or takes no such codes.
        """
        tiling = self._tiling_of(file)
        pixels = torch.empty(3, tiling.rows[-1].stop, tiling.columns[-1].stop, dtype=torch.uint8)
        known = torch.ones_like(pixels[0], dtype=torch.bool)
        for (down, across), tile in zip(tiling, tiles, strict=True):
            with computing(self.device):
                decoded = self.tokenizer.decode(filled(tile, self.tokenizer.spec).to(self.device))[0]
            if not decoded.isfinite().all():
                raise UserError("the tokenizer gives NaN or infinite pixels for these codes")
            pixels[:, down, across] = to_bytes(decoded).cpu()
            if tile.known is not None:
                factor = self.tokenizer.spec.factors[0]
                known[down, across] = tile.known.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        if not known.all():
            pixels = to_bytes(smoothed(to_unit_range(pixels), known))
        return pixels[:, : tiling.height, : tiling.width].contiguous()

    def _tiling(self, height: int, width: int, tile: int) -> Tiling:
        if height * width > MOST_PIXELS:
            raise UserError(f"it has {width} × {height} pixels, more than {MOST_PIXELS}")
        if self.size is None:
            return Tiling.of(self.tokenizer, height, width, tile)
        divisor = self.tokenizer.divisor
        if any(side % divisor for side in self.size) or (
            isinstance(self.tokenizer, FixedSize) and self.tokenizer.image_size != self.size
        ):
            raise UserError(f"the prior models pictures of {self.size} pixels, which the tokenizer does not take")
        return Tiling(height, width, self.size, 1)

    def _tiling_of(self, file: VltFile) -> Tiling:
        header = file.header
        tiling = self._tiling(header.height, header.width, 1)
        return replace(tiling, most=header.tile or max(header.height, header.width))


def cuttable(tokenizer: Tokenizer) -> bool:
    """Whether any beginning of an image's codes is an image (`Steerable`)."""
    return isinstance(tokenizer, Steerable) and not tokenizer.spec.gridded


def most_stages(tokenizer: Tokenizer) -> int:
    """The most stages that a file of a tokenizer's codes can have."""
    spec = tokenizer.spec
    return _doublings(spec.longest_length) if cuttable(tokenizer) else max(spec.granularities, 1)


def _doublings(length: int) -> int:
    """How many numbers of codes are shown that grow up to a length: 1, 2, 4, and so on."""
    return (length - 1).bit_length() + 1


def _beginning(tile: DecodedTile, most: int) -> DecodedTile:
    """At most so many codes of a tile, of those that lie on no grid."""
    ids = tile.codes.ids[:most]
    return DecodedTile(Codes(ids, torch.tensor([len(ids)])))


def smoothed(image: Float[Tensor, "3 H W"], known: Bool[Tensor, "H W"]) -> Float[Tensor, "3 H W"]:
    """An image where what is not known comes from ever coarser means of what is; 0, which is grey, where nothing is."""
    if known.all() or not known.any():
        return image * known
    weights = known.to(image.dtype)[None]
    sums, counts = (F.avg_pool2d(values, 2, ceil_mode=True) for values in (image * weights, weights))
    coarser = smoothed(sums / counts.clamp(min=torch.finfo(counts.dtype).tiny), counts[0] > 0)
    between = F.interpolate(coarser[None], image.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.where(known, image, between)


def filled(tile: DecodedTile, spec: CodeSpec) -> Codes:
    """The codes of a tile, where a region that is not known has the first code of the nearest one that is: a decoder
    looks at the neighbours of those that are."""
    if tile.known is None or tile.known.all() or not tile.known.any():
        return tile.codes
    grains = tile.codes.require_grains()
    side = spec.sides[-1]
    firsts = tile.codes.to_code_map(spec)[0, ::side, ::side]
    missing, there = (~tile.known).nonzero().float(), tile.known.nonzero().float()
    # in parts: all distances of a big tile would take gigabytes
    nearest = torch.cat([torch.cdist(part, there).argmin(1) for part in missing.split(_PART)])
    firsts[~tile.known] = firsts[tile.known][nearest]
    ids = tile.codes.ids.clone()
    coarsest = grains[0] == 0
    ids[: int(coarsest.sum())] = firsts[coarsest]
    return replace(tile.codes, ids=ids)
