"""One picture of any size through a tokenizer: padded, coded in tiles where it is big, and cropped back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.errors import UserError
from vltok.evaluation.adaptation import Adaptation
from vltok.evaluation.records import Record, environment
from vltok.evaluation.values import mean_value
from vltok.interfaces import Tokenizer
from vltok.measures.codes import fixed_rate_bits, ratios
from vltok.measures.pixels import picture_psnr, to_bytes
from vltok.nn.precision import computing
from vltok.pictures.tiles import Tiling
from vltok.pictures.transforms import padded
from vltok.rates import Rate
from vltok.tokenizers.rate import RateEncoder, tiles_at


@dataclass(frozen=True, eq=False)
class CodedPicture:
    """A picture as a tokenizer gives it back.

    Attributes:
        reconstruction: Its pixels, of the picture's size.
        length: The number of codes.
        grains: The granularity of each region of the padded picture, or None where codes lie on no grid.
    """

    reconstruction: UInt8[Tensor, "3 H W"]
    length: int
    grains: Int[Tensor, "h w"] | None


@dataclass(frozen=True)
class PictureFigures:
    """What one picture cost, and how well it came back.

    Attributes:
        width: In pixels.
        height: In pixels.
        psnr: Peak signal-to-noise ratio in dB of the reconstruction's 8-bit pixels (`vltok.measures.pixels.psnr`).
        code_length: The number of codes.
        bits: What the codes take at a fixed rate (`vltok.measures.codes.fixed_rate_bits`).
        ratios: The share of regions of each granularity, by factor; empty where codes lie on no grid.
    """

    width: int
    height: int
    psnr: float
    code_length: int
    bits: float
    ratios: dict[int, float]


@torch.inference_mode()
def code_picture(
    tokenizer: Tokenizer,
    picture: UInt8[Tensor, "3 H W"],
    tile: int,
    device: torch.device | str = "cpu",
    rate: RateEncoder | None = None,
) -> CodedPicture:
    """Encode and decode a picture of any size, in float32.

    Where its sides are no multiples of the tokenizer's `divisor`, the picture is continued on the right and below by
    its own reflection, which is coded with it and then cut off. A picture with a longer side than `tile` is divided
    into tiles of about equal size, each coded as a picture of its own: memory is bounded by the tile. Every tile has
    the size that a `FixedSize` tokenizer takes.

    Args:
        tokenizer: In evaluation mode, on `device`.
        picture: Its pixels.
        tile: The longest side, in pixels, that is coded at once; rounded up to a multiple of `divisor`. Without
            effect on a `FixedSize` tokenizer.
        device: Where to compute.
        rate: How many codes the picture gets; None for what the tokenizer chooses.

    Raises:
        UserError: The tokenizer does not take pictures of this size, or gives no numbers; or they have no such rate.
    """
    height, width = picture.shape[1:]
    tiling = Tiling.of(tokenizer, height, width, tile)
    whole = padded(picture, *tiling.unit)
    reconstruction = torch.empty(whole.shape, dtype=torch.uint8)
    coded = tiles_at(tokenizer, rate, whole, list(tiling), (height, width), device)
    length = 0
    grains: list[list[Tensor]] = []
    for down in tiling.rows:
        grains.append([])
        for across in tiling.columns:
            with computing(device):
                codes = next(coded)
                decoded = tokenizer.decode(codes)[0]
            if not decoded.isfinite().all():
                raise UserError("the tokenizer gives NaN or infinite pixels for this picture")
            reconstruction[:, down, across] = to_bytes(decoded).cpu()
            length += int(codes.lengths.sum())
            if tokenizer.spec.gridded:
                grains[-1].append(codes.require_grains()[0].cpu())
    return CodedPicture(
        reconstruction[:, :height, :width].contiguous(),
        length,
        torch.cat([torch.cat(row, dim=1) for row in grains]) if tokenizer.spec.gridded else None,
    )


def picture_figures(picture: UInt8[Tensor, "3 H W"], coded: CodedPicture, spec: CodeSpec) -> PictureFigures:
    """The figures of a picture that `code_picture` has coded."""
    regions = 0 if coded.grains is None else coded.grains.numel()
    shares = {} if coded.grains is None else ratios(coded.grains, spec.factors)
    bits = fixed_rate_bits(float(coded.length), regions, spec)
    height, width = picture.shape[1:]
    ratio = picture_psnr(coded.reconstruction, picture)
    return PictureFigures(width, height, ratio, coded.length, bits, {f: share.item() for f, share in shares.items()})


def reconstruction_record(
    tokenizer: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    tile: int,
    adaptation: Adaptation | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
    device: torch.device | str = "cpu",
    rate: Rate | None = None,
) -> Record:
    """The record of pictures that were reconstructed.

    Args:
        tokenizer: Its path and fingerprint.
        images: The `PictureFigures` of each as plain values, with the `source` that it was read from.
        tile: The longest side that was coded at once.
        adaptation: Whether the codes went where they help, measured on crops of the pictures; None where it was not.
        skipped: The pictures that could not be reconstructed, and why.
        device: Where they were coded.
        rate: What was asked of their code length, if something was.
    """
    columns = {
        "psnr": [image["psnr"] for image in images],
        "length": [image["code_length"] for image in images],
        "bits_per_pixel": [image["bits"] / (image["width"] * image["height"]) for image in images],
        **{
            f"ratio_{factor}": [image["ratios"][factor] for image in images]
            for factor in (images[0]["ratios"] if images else ())
        },
    }
    values = {name: mean_value(np.array(column, dtype=float)) for name, column in columns.items() if column}
    data = {"sources": [image["source"] for image in images], "images": len(images)}
    protocol: dict[str, Any] = {"data": data, "precision": "float32", "tile": tile, "adaptation": None}
    if rate is not None:
        protocol["rate"] = str(rate)
    if adaptation is not None:
        values |= adaptation.values
        protocol["adaptation"] = {"images": adaptation.images, "regions": adaptation.regions}
    return Record("tokenizer", tokenizer, values, {}, protocol, {**environment(device), "skipped": skipped}, images)
