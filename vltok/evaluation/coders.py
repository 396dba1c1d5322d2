"""What is measured: a tokenizer, or a codec that everybody knows, behind one interface."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.interfaces import Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range
from vltok.nn.precision import computing

Codec = Literal["jpeg", "webp"]
HIGHEST_QUALITY = {"jpeg": 95, "webp": 100}


@dataclass(frozen=True, eq=False)
class CodedBatch:
    """A batch, coded and decoded.

    Attributes:
        pixels: The reconstructions.
        bits: What each image takes, in bits.
        codes: The codes, on the CPU; None for a codec.
    """

    pixels: UInt8[Tensor, "b 3 H W"]
    bits: Float[Tensor, " b"]
    codes: Codes | None


class Coder(ABC):
    """Codes images and decodes them."""

    @abstractmethod
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> CodedBatch:
        """Code a batch, and decode it. When it returns, the work is done."""


class TokenizerCoder(Coder):
    """A tokenizer, in float32. An image takes log2(v) bits a code, and log2(K) bits a region.

    Args:
        tokenizer: In evaluation mode, on `device`.
        device: Where to compute.

    Raises:
        UserError: The tokenizer gives NaN or infinite pixels, or does not take images of this size.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device | str) -> None:
        self._tokenizer, self._device = tokenizer, device

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> CodedBatch:
        with computing(self._device):
            return _decoded(self._tokenizer, self._tokenizer.encode(to_unit_range(pixels.to(self._device))))


class CoarsestCoder(Coder):
    """A tokenizer, made one of fixed length: every region has its coarsest granularity.

    Args:
        tokenizer: One that is `Adaptive`; in evaluation mode, on `device`.
        device: Where to compute.

    Raises:
        UserError: As `TokenizerCoder`.
    """

    def __init__(self, tokenizer: Tokenizer, device: torch.device | str) -> None:
        self._tokenizer, self._device = tokenizer, device

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> CodedBatch:
        with computing(self._device):
            found = self._tokenizer.alternatives(to_unit_range(pixels.to(self._device)))
            coarsest = torch.zeros_like(found.decision.grains)
            return _decoded(self._tokenizer, Codes.from_code_map(found.code_maps[0], coarsest, self._tokenizer.spec))


def _decoded(tokenizer: Tokenizer, codes: Codes) -> CodedBatch:
    decoded = tokenizer.decode(codes)
    if not decoded.isfinite().all():
        raise UserError("the tokenizer gives NaN or infinite pixels")
    spec, codes = tokenizer.spec, codes.to("cpu")
    regions = codes.require_grains()[0].numel() if spec.gridded else 0
    bits = fixed_rate_bits(codes.lengths.double(), regions, spec)
    return CodedBatch(to_bytes(decoded).cpu(), bits.float(), codes)


class CodecCoder(Coder):
    """Pillow's JPEG or WebP. An image takes the bits of its whole file, headers and tables included.

    Args:
        codec: Which.
        quality: From 1 to 95 for JPEG (100 switches parts of it off), to 100 for WebP.

    Raises:
        UserError: The quality is out of range.
    """

    def __init__(self, codec: Codec, quality: int) -> None:
        if not 1 <= quality <= HIGHEST_QUALITY[codec]:
            raise UserError(f"--quality must lie between 1 and {HIGHEST_QUALITY[codec]} for {codec}, not {quality}")
        self._options = {"jpeg": {"optimize": True}, "webp": {"method": 6}}[codec] | {"quality": quality}
        self._format = codec

    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> CodedBatch:
        with ThreadPoolExecutor() as threads:  # Pillow codes without holding Python's lock
            coded = list(threads.map(self._code, pixels))
        return CodedBatch(
            torch.stack([decoded for decoded, _ in coded]), torch.tensor([float(bits) for _, bits in coded]), None
        )

    def _code(self, pixels: UInt8[Tensor, "3 H W"]) -> tuple[UInt8[Tensor, "3 H W"], int]:
        file = io.BytesIO()
        to_picture(pixels).save(file, format=self._format, **self._options)
        with Image.open(file) as picture:
            decoded = rearrange(torch.from_numpy(np.array(picture.convert("RGB"))), "H W c -> c H W")
        return decoded, 8 * file.getbuffer().nbytes
