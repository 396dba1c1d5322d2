"""Quantizers whose codes are the cells of a grid: no table of vectors is learned, and none falls out of use."""

from __future__ import annotations

import math

from jaxtyping import Float, Int
from torch import Tensor
from vector_quantize_pytorch import FSQ, LFQ

from vltok.errors import UserError, whole_number
from vltok_vector_quantize.wrapped import WrappedQuantizer


class ProductFSQ(WrappedQuantizer):
    """Rounds each channel to one of a few levels; several groups of channels make the ids of a code.

    Finite scalar quantization (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505). There is no loss.

    Args:
        levels: The number of levels of each channel of a group, each at least 3.
        codebooks: How many groups of channels there are.

    Raises:
        UserError: There is no channel or no group, or a channel has fewer than 3 levels.
    """

    def __init__(self, levels: list[int], codebooks: int = 2) -> None:
        if not levels or min(levels) < 3:
            raise UserError(f"quantizer.levels must be numbers of at least 3, such as [8, 8, 8], not {levels}")
        whole_number("quantizer.codebooks", codebooks, 1)
        library = FSQ(list(levels), num_codebooks=codebooks)
        super().__init__(library, library.codebook_size, library.dim, codebooks)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        return *self.library(vectors), vectors.new_zeros(())

    def _vectors(self, ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n c"]:
        return self.library.indices_to_codes(ids[None])[0]


class LookupFreeQuantizer(WrappedQuantizer):
    """The signs of channels are the bits of a code.

    Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, https://arxiv.org/abs/2310.05737). A loss makes each sign sure
    and all codes of a batch equally frequent. It looks at all entries of a codebook, so that many bits need several.

    Args:
        bits: Of a code: one a channel.
        codebooks: How many ids a code has, each of as many of the bits.
        entropy: Weight of the loss of sure signs and frequent codes.
        diversity: How much of that is for frequent codes, γ.
        commitment: Weight of the term that draws vectors to their codes.

    Raises:
        UserError: The codebooks do not share the bits, or a codebook has more than 2^16 entries.
    """

    def __init__(
        self, bits: int = 18, codebooks: int = 2, entropy: float = 0.1, diversity: float = 1.0, commitment: float = 0.25
    ) -> None:
        library = _signs(bits, codebooks, entropy, diversity, commitment, spherical=False)
        super().__init__(library, library.codebook_size, bits, codebooks)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        return self.library(vectors)

    def _vectors(self, ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n c"]:
        return self.library.indices_to_codes(ids[None])[0]


class BinarySphericalQuantizer(WrappedQuantizer):
    """The signs of channels are the bits of a code, of vectors and codes on the unit sphere.

    Binary spherical quantization (Zhao et al. 2024, https://arxiv.org/abs/2406.07548); each codebook has a sphere of
    its own. The loss is that of `lfq`.

    Args:
        bits: Of a code: one a channel.
        codebooks: How many ids a code has, each of as many of the bits.
        entropy: Weight of the loss of sure signs and frequent codes.
        diversity: How much of that is for frequent codes, γ.
        commitment: Weight of the term that draws vectors to their codes.

    Raises:
        UserError: The codebooks do not share the bits, or a codebook has more than 2^16 entries.
    """

    def __init__(
        self, bits: int = 18, codebooks: int = 2, entropy: float = 0.1, diversity: float = 1.0, commitment: float = 0.25
    ) -> None:
        library = _signs(bits, codebooks, entropy, diversity, commitment, spherical=True)
        super().__init__(library, library.codebook_size, bits, codebooks)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        return self.library(vectors)

    def _vectors(self, ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n c"]:
        return self.library.indices_to_codes(ids[None])[0]


def _signs(bits: int, codebooks: int, entropy: float, diversity: float, commitment: float, spherical: bool) -> LFQ:
    whole_number("quantizer.codebooks", codebooks, 1)
    if bits < 1 or bits % codebooks:
        raise UserError(f"quantizer.bits must be a multiple of the {codebooks} codebooks, not {bits}")
    if bits // codebooks > 16:
        least = math.ceil(bits / 16)
        raise UserError(f"quantizer.bits is {bits}: give at least {least} codebooks, of up to 2^16 entries each")
    return LFQ(
        dim=bits,
        codebook_size=2 ** (bits // codebooks),
        num_codebooks=codebooks,
        entropy_loss_weight=entropy,
        diversity_gamma=diversity,
        commitment_loss_weight=commitment,
        spherical=spherical,
    )
