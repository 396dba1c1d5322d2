"""Quantizers with tables of vectors."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ, SimVQ, VectorQuantize

from vltok.errors import UserError, whole_number
from vltok_vector_quantize.wrapped import WrappedQuantizer


class SimVectorQuantizer(WrappedQuantizer):
    """Nearest code of a frozen random table that one learned matrix turns, so that all codes move together.

    SimVQ (Zhu et al. 2024, https://arxiv.org/abs/2411.02038), with the gradient of the rotation trick.

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector.
        commitment: Weight of the term that draws vectors to their codes.

    Raises:
        UserError: A number that is too small.
    """

    def __init__(self, size: int = 1024, dimension: int = 64, commitment: float = 0.25) -> None:
        _check(size, dimension, commitment)
        library = SimVQ(dimension, size, input_to_quantize_commit_loss_weight=commitment)
        super().__init__(library, size, dimension)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        return self.library(vectors)

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
        return self.library.indices_to_codes(ids[None])[0]


class RotationVectorQuantizer(WrappedQuantizer):
    """Nearest code of a codebook of moving averages; the gradient is rotated from the code to its vector.

    The rotation trick (Fifty et al. 2024, https://arxiv.org/abs/2410.06424).

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector, at least 2.
        commitment: Weight of the term that draws vectors to their codes.
        decay: Share of the moving averages that stays at each step.
        restart_below: A code that gets fewer vectors a step than this on average restarts at one of the batch.

    Raises:
        UserError: A number that is too small.
    """

    def __init__(
        self,
        size: int = 1024,
        dimension: int = 64,
        commitment: float = 0.25,
        decay: float = 0.9,
        restart_below: int = 1,
    ) -> None:
        _check(size, dimension, commitment, least_dimension=2)
        library = VectorQuantize(
            dimension,
            size,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=restart_below,
            rotation_trick=True,
        )
        super().__init__(library, size, dimension)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        chosen, ids, loss = self.library(vectors)
        return chosen, ids, loss.sum()

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
        return self.library.get_codes_from_indices(ids)


class ResidualVectorQuantizer(WrappedQuantizer):
    """Stages, each of which quantizes what those before it have left over, with a codebook of moving averages each.

    ResidualVQ, as in SoundStream (Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312).

    Args:
        size: Number of entries of each codebook.
        dimension: Width of a code's vector, at least 2.
        codebooks: How many stages there are, at least 2.
        commitment: Weight of the term that draws vectors to their codes.
        decay: Share of the moving averages that stays at each step.
        restart_below: An entry that gets fewer vectors a step than this on average restarts at one of the batch.

    Raises:
        UserError: A number that is too small.
    """

    def __init__(
        self,
        size: int = 1024,
        dimension: int = 64,
        codebooks: int = 4,
        commitment: float = 0.25,
        decay: float = 0.9,
        restart_below: int = 1,
    ) -> None:
        _check(size, dimension, commitment, least_dimension=2)
        whole_number("quantizer.codebooks", codebooks, 2, "; for one, give rotation-vq")
        library = ResidualVQ(
            dim=dimension,
            num_quantizers=codebooks,
            codebook_size=size,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=restart_below,
        )
        super().__init__(library, size, dimension, codebooks)

    def _read(self, vectors: Float[Tensor, "1 n c"]) -> tuple[Tensor, Tensor, Tensor]:
        chosen, ids, losses = self.library(vectors)
        return chosen, ids, losses.mean()

    def _vectors(self, ids: Int[Tensor, "n q"]) -> Float[Tensor, "n c"]:
        return self.library.get_output_from_indices(ids[None])[0]


def _check(size: int, dimension: int, commitment: float, least_dimension: int = 1) -> None:
    whole_number("quantizer.size", size, 1)
    whole_number("quantizer.dimension", dimension, least_dimension)
    if commitment < 0:
        raise UserError(f"quantizer.commitment must be at least 0, not {commitment}")
