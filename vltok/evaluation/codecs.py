"""The codecs that everybody knows, which tokenizers are measured beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Codec = Literal["jpeg", "webp", "avif", "jpeg2000", "jpegxl"]
#: JPEG's 100 switches parts of it off. JPEG 2000 is asked for a PSNR, in dB.
HIGHEST_QUALITY: Mapping[Codec, int] = {"jpeg": 95, "webp": 100, "avif": 100, "jpeg2000": 100, "jpegxl": 100}
