"""The nearest codes of many vectors against `torch.cdist` and argmin, which are given as much memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from vltok.tokenizers.quantizers import nearest_codes

from .table import Row, Setting, in_turns, ratios

#: What the baseline may hold: 256 MiB of float32.
MOST = 2**26


def rows(setting: Setting) -> Iterator[Row]:
    """Vectors of 8 and of 256 values, among 16,384: a million at full size, else a sixteenth, which go as fast."""
    count, size = (2**10, 2**8) if setting.tiny else (2**20 if setting.full else 2**16, 2**14)
    for dimension in (8, 256):
        codebook = torch.randn(size, dimension, device=setting.device)
        vectors = torch.randn(count, dimension, device=setting.device)
        images = vectors.T.reshape(1, dimension, 32, -1)
        ours, theirs = in_turns(
            lambda images=images, codebook=codebook: nearest_codes(images, codebook),
            lambda vectors=vectors, codebook=codebook: by_cdist(vectors, codebook),
            replace(setting, turns=min(setting.turns, 3)),
        )
        yield Row(
            "nearest code",
            f"{count:,} vectors of {dimension}, {size:,} codes, float32",
            f"{count / min(ours) / 1e3:,.0f}k vectors/s",
            f"cdist and argmin in 256 MiB {count / min(theirs) / 1e3:,.0f}k vectors/s",
            ratios(ours, theirs),
            target=1.0,
        )


def by_cdist(vectors: Tensor, codebook: Tensor) -> Tensor:
    """The same by PyTorch's own distances."""
    parts = vectors.split(max(MOST // len(codebook), 1))
    return torch.cat([torch.cdist(part, codebook).argmin(1) for part in parts])
