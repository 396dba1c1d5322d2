"""Priors of tiny transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vltok.codes import CodeSpec
from vltok.interfaces import Prior
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior

#: The transformers of each prior.
TRANSFORMERS: dict[type[Prior], tuple[str, ...]] = {
    DQTransformer: ("position_transformer", "content_transformer"),
    RasterScan: ("position_transformer", "content_transformer"),
    GlobalLocal: ("global_transformer", "local_transformer"),
    SequencePrior: ("transformer",),
}


def tiny_prior(
    kind: type[Prior],
    codebook_size: int = 13,
    factors: Sequence[int] = (2, 1),
    regions: tuple[int, int] = (2, 3),
    layers: Sequence[int] = (1, 1),
    width: int = 16,
    heads: int = 2,
    dropout: float = 0.0,
    codebooks: int = 1,
    checkpointing: bool = False,
    **options: Any,
) -> Any:
    """A prior whose transformers have so many layers; without factors its codes lie on no grid, six at most."""
    transformers = {
        name: Transformer(width, heads, count, dropout, checkpointing)
        for name, count in zip(TRANSFORMERS[kind], layers, strict=False)
    }
    grid: dict[str, Any] = {"factors": tuple(factors), "regions": regions} if factors else {"max_length": 6}
    spec = CodeSpec(codebook_size, codebooks=codebooks, **grid)
    return kind(spec=spec, dropout=dropout, **transformers, **options)
