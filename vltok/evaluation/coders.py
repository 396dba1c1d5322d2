"""What is measured: a tokenizer, or a codec that everybody knows, behind one interface."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, features
from torch import Tensor

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.evaluation.codecs import HIGHEST_QUALITY, Codec
from vltok.interfaces import Adaptive, Tokenizer
from vltok.measures.codes import fixed_rate_bits
from vltok.measures.pixels import to_bytes, to_picture, to_unit_range
from vltok.nn.precision import computing
from vltok.pictures.formats import register_plugins

#: What Pillow calls the formats, and the libraries that write them; that of JPEG XL is a plug-in.
_FORMATS: Mapping[Codec, tuple[str, str]] = {
    "jpeg": ("JPEG", "jpg"),
    "webp": ("WEBP", "webp"),
    "avif": ("AVIF", "avif"),
    "jpeg2000": ("JPEG2000", "jpg_2000"),
    "jpegxl": ("JXL", "pillow_jxl"),
}
#: What brings each.
_PACKAGES: Mapping[Codec, str] = {**dict.fromkeys(get_args(Codec), "--upgrade pillow"), "jpegxl": "pillow-jxl-plugin"}
#: How small files are asked for, of what takes no seconds.
_OPTIONS: Mapping[Codec, Mapping[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 6},
    "avif": {"speed": 6},
    "jpeg2000": {"quality_mode": "dB", "irreversible": True, "mct": 1, "no_jp2": True},
    "jpegxl": {"effort": 7},
}


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


#: Gives the bits of the files that codes become.
BitsOfFiles = Callable[[Codes], Float[Tensor, " b"]]
#: Codes a batch and decodes it; when it returns, the work is done.
Coder = Callable[[UInt8[Tensor, "b 3 H W"]], CodedBatch]


class TokenizerCoder:
    """A tokenizer, in float32. An image takes q·log2(v) bits a code, and log2(K) bits a region.

    Args:
        tokenizer: In evaluation mode, on `device`.
        device: Where to compute.
        encode: Gives the codes of images; by default the tokenizer's own way.

    Raises:
        UserError: The tokenizer gives NaN or infinite pixels, or does not take images of this size.
    """

    def __init__(
        self, tokenizer: Tokenizer, device: torch.device | str, encode: Callable[[Tensor], Codes] | None = None
    ) -> None:
        self._tokenizer, self._device, self._encode = tokenizer, device, encode or tokenizer.encode

    @torch.inference_mode()
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> CodedBatch:
        with computing(self._device):
            codes = self._encode(to_unit_range(pixels.to(self._device)))
        return self.decoded(codes)

    @torch.inference_mode()
    def decoded(self, codes: Codes) -> CodedBatch:
        """Codes of images of one size.

        Raises:
            UserError: The tokenizer gives NaN or infinite pixels.
        """
        spec = self._tokenizer.spec
        with computing(self._device):
            decoded = self._tokenizer.decode(codes)
        if not decoded.isfinite().all():
            raise UserError("the tokenizer gives NaN or infinite pixels")
        codes = codes.to("cpu")
        regions = codes.require_grains()[0].numel() if spec.gridded else 0
        bits = fixed_rate_bits(codes.lengths.double(), regions, spec)
        return CodedBatch(to_bytes(decoded).cpu(), bits.float(), codes)


def coarsest_codes(tokenizer: Adaptive, spec: CodeSpec, images: Float[Tensor, "b 3 H W"]) -> Codes:
    """The codes of images whose every region has the coarsest granularity: of a tokenizer made one of fixed length."""
    found = tokenizer.alternatives(images)
    return Codes.from_code_map(found.code_maps[0], torch.zeros_like(found.decision.grains), spec)


def codecs_here() -> list[Codec]:
    """The codecs that Pillow writes on this machine."""
    register_plugins()
    written = features.get_supported()
    Image.init()
    return [codec for codec in get_args(Codec) if _written(*_FORMATS[codec], written)]


def _written(name: str, library: str, supported: list[str]) -> bool:
    return name in Image.SAVE and (library in supported or library == "pillow_jxl")


class CodecCoder:
    """A codec as Pillow writes it. An image takes the bits of its whole file, headers and tables included.

    Args:
        codec: Which.
        quality: From 1 to its `HIGHEST_QUALITY`.

    Raises:
        UserError: Pillow does not write it here, or the quality is out of range.
    """

    def __init__(self, codec: Codec, quality: int) -> None:
        if codec not in (here := codecs_here()):
            raise UserError(
                f"Pillow does not write {codec} here, but {', '.join(here)}: pip install {_PACKAGES[codec]}"
            )
        if not 1 <= quality <= HIGHEST_QUALITY[codec]:
            raise UserError(f"--quality must lie between 1 and {HIGHEST_QUALITY[codec]} for {codec}, not {quality}")
        asked = {"quality_layers": [quality]} if codec == "jpeg2000" else {"quality": quality}
        self._options = {**_OPTIONS[codec], **asked}
        self._format = _FORMATS[codec][0]

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
