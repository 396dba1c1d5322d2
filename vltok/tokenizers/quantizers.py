"""Quantizers: vectors → codes of a codebook (eq. 1 of the paper).

A vector counts by its weight, so that a coarse code, which stands several times on the finest grid, counts once: in the
losses, and in the moving averages of `EMAVectorQuantizer`. In training it counts the same on all processes, though one
may have more codes than another.
"""

import math
from abc import abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.errors import UserError
from vltok.interfaces import Quantized, Quantizer
from vltok.processes import mean_over_processes, sums_over_processes, world
from vltok.tokenizers.straight_through import gumbel_like, straight_through

#: The most distances that the search holds at once (32 MiB in float32, so that they stay near a CPU).
MOST_DISTANCES = 2**23


class CodebookQuantizer(Quantizer):
    """A quantizer whose codes are the rows of a table.

    It computes in at least float32, whatever autocast or the model's type say.

    Attributes:
        codebook: The table.
    """

    codebook: Float[Tensor, "v c"]

    @property
    @final
    def size(self) -> int:
        return self.codebook.shape[0]

    @property
    @final
    def dimension(self) -> int:
        return self.codebook.shape[1]

    def forward(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None = None) -> Quantized:
        precise = torch.promote_types(self.codebook.dtype, torch.float32)
        with torch.autocast(vectors.device.type, enabled=False):
            return self.quantize(vectors.to(precise), weights)

    @abstractmethod
    def quantize(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None) -> Quantized:
        """What `forward` gives, of vectors that are precise enough."""


class VectorQuantizer(CodebookQuantizer):
    """Nearest code of a codebook that is trained by gradient, as in VQGAN.

    The loss is ``‖sg(x) − e‖² + commitment · ‖x − sg(e)‖²``, means over elements, each code counting once
    (VQGAN, section 3.1, https://arxiv.org/abs/2012.09841; its code's ``legacy=False``).

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector.
        commitment: Weight of the term that draws vectors to their codes, β.

    Raises:
        UserError: A size that is not positive, or a negative commitment.
    """

    def __init__(self, size: int = 1024, dimension: int = 256, commitment: float = 0.25) -> None:
        super().__init__()
        _check(size, dimension, commitment)
        self.commitment = commitment
        self.codebook = nn.Parameter(torch.empty(size, dimension).uniform_(-1 / size, 1 / size))

    def quantize(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None) -> Quantized:
        ids = nearest_codes(vectors, self.codebook)
        codes = self.lookup(ids)
        total = _total_weight(vectors, weights, self.training)
        loss = _attraction(vectors, codes, weights, total, self.commitment)
        return Quantized(ids, straight_through(codes, vectors), loss)

    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        return _lookup(ids, self.codebook)


class EMAVectorQuantizer(CodebookQuantizer):
    """Nearest code of a codebook that follows its vectors by exponential moving averages.

    In training mode every forward pass updates the codebook once, after the codes were looked up; so a training step
    must call it once (the original implementation does so for each of its two optimizers, twice a step). Over several
    processes the averages are taken over all of them, and the codebooks stay equal
    (VQ-VAE, appendix A.1, https://arxiv.org/abs/1711.00937; restarts: Jukebox, section 3.1,
    https://arxiv.org/abs/2005.00341).

    The loss has the value of `VectorQuantizer`'s, but only its commitment term has a gradient.

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector.
        commitment: Weight of the term that draws vectors to their codes, β.
        decay: Share of the moving averages that stays at each step, in (0, 1).
        epsilon: Smoothing of the codes' counts (Laplace), against division by zero.
        restart: Whether a code that got less than one vector a step on average restarts at a random vector of the
            batch. At the first step nearly every code does, so that the codebook starts from data.

    Raises:
        UserError: A size that is not positive, a negative commitment, or a decay outside (0, 1).
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        size: int = 1024,
        dimension: int = 256,
        commitment: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        restart: bool = True,
    ) -> None:
        super().__init__()
        _check(size, dimension, commitment)
        if not 0 < decay < 1:
            raise UserError(f"quantizer.decay must lie between 0 and 1, not {decay}")
        self.commitment = commitment
        self.decay = decay
        self.epsilon = epsilon
        self.restart = restart
        codebook = torch.randn(size, dimension)
        self.register_buffer("codebook", codebook)
        # one vector for each code, so that sums / counts is the codebook from the start
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", codebook.clone())

    def quantize(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None) -> Quantized:
        ids = nearest_codes(vectors, self.codebook)
        codes = self.lookup(ids)
        total = _total_weight(vectors, weights)
        if self.training:
            total = self._update(vectors.detach(), ids, weights, total)
        error = mean_square(vectors - codes, weights, total)
        loss = error.detach() + self.commitment * error
        return Quantized(ids, straight_through(codes, vectors), loss)

    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        return _lookup(ids, self.codebook)

    @torch.no_grad()
    def _update(
        self,
        vectors: Float[Tensor, "b c H W"],
        ids: Int[Tensor, "b H W"],
        weights: Float[Tensor, "b 1 H W"] | None,
        total: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Follow the vectors of all processes; the mean over these of their total weights."""
        rank, processes = world()
        rows = vectors.movedim(1, -1).flatten(0, 2)
        shares = rows.new_ones(rows.shape[0]) if weights is None else weights.flatten().to(rows.dtype)
        seen = rows.new_zeros(self.size, self.dimension + 1)
        seen.index_add_(0, ids.flatten(), torch.cat([rows, rows.new_ones(rows.shape[0], 1)], dim=1) * shares[:, None])
        restarts = rows.new_zeros(self.size if self.restart else 0, self.dimension)
        if self.restart and rank == 0:  # the others add nothing: codes restart at vectors of the first process
            restarts = self._candidates(rows, shares)
        seen, restarts, total = sums_over_processes(seen, restarts, total)
        self.sums.lerp_(seen[:, :-1].to(self.sums.dtype), 1 - self.decay)
        self.counts.lerp_(seen[:, -1].to(self.counts.dtype), 1 - self.decay)
        if self.restart:
            unused = self.counts < 1
            self.sums.copy_(torch.where(unused[:, None], restarts.to(self.sums.dtype), self.sums))
            self.counts.masked_fill_(unused, 1)
        count = self.counts.sum()
        smoothed = count * (self.counts + self.epsilon) / (count + self.size * self.epsilon)
        self.codebook.copy_(self.sums / smoothed[:, None])
        return total / processes

    def _candidates(self, rows: Float[Tensor, "n c"], shares: Float[Tensor, " n"]) -> Float[Tensor, "v c"]:
        """For each code a vector at which it could restart."""
        if not rows.shape[0]:
            return self.codebook.to(rows.dtype)
        copies = math.ceil(self.size / rows.shape[0])
        if copies > 1:  # so that no two codes restart at the same place
            rows = rows.repeat(copies, 1)
            rows = rows + torch.rand_like(rows) * (0.01 / math.sqrt(self.dimension))
        return rows[draw_without_replacement(shares.repeat(copies), self.size)]


class CosineVectorQuantizer(CodebookQuantizer):
    """Nearest code on the unit sphere: vectors and codes are normalised before they are compared and used.

    The loss is that of `VectorQuantizer`, of the normalised vectors
    (ViT-VQGAN, section 3.2, https://arxiv.org/abs/2110.04627).

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector; few serve best.
        commitment: Weight of the term that draws vectors to their codes, β.

    Raises:
        UserError: A size that is not positive, or a negative commitment.
    """

    def __init__(self, size: int = 8192, dimension: int = 8, commitment: float = 0.25) -> None:
        super().__init__()
        _check(size, dimension, commitment)
        self.commitment = commitment
        self.codebook = nn.Parameter(F.normalize(torch.randn(size, dimension), dim=1))

    def quantize(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None) -> Quantized:
        vectors = F.normalize(vectors, dim=1)
        ids = nearest_codes(vectors, F.normalize(self.codebook, dim=1))
        codes = self.lookup(ids)
        total = _total_weight(vectors, weights, self.training)
        loss = _attraction(vectors, codes, weights, total, self.commitment)
        return Quantized(ids, straight_through(codes, vectors), loss)

    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        return _lookup(ids, F.normalize(self.codebook, dim=1))


class GumbelQuantizer(CodebookQuantizer):
    """Scores every code, and takes the one of the largest score; trained by Gumbel-softmax.

    In training a code is drawn by the scores, the gradient is that of the draw's softmax, and the loss is the
    divergence of the scores from a uniform choice. Otherwise the largest score decides, without noise
    (DALL·E, section 2.1, https://arxiv.org/abs/2102.12092; taming-transformers' GumbelVQ).

    Args:
        size: Number of codes of the codebook.
        dimension: Width of a code's vector, and of what is scored.
        temperature: Of the softmax, τ.
        divergence: Weight of the divergence.
        noise: Scale of the Gumbel noise. 1 draws by the softmax, 0 decides in training as in evaluation.

    Raises:
        UserError: A size or a temperature that is not positive, or a negative weight.
    """

    def __init__(
        self,
        size: int = 8192,
        dimension: int = 256,
        temperature: float = 1.0,
        divergence: float = 5e-4,
        noise: float = 1.0,
    ) -> None:
        super().__init__()
        _check(size, dimension, divergence, "divergence")
        if temperature <= 0:
            raise UserError(f"quantizer.temperature must be positive, not {temperature}")
        self.temperature = temperature
        if noise < 0:
            raise UserError(f"quantizer.noise must be at least 0, not {noise}")
        self.divergence = divergence
        self.noise = noise
        self.codebook = nn.Parameter(torch.randn(size, dimension))
        self.score = nn.Conv2d(dimension, size, 1)
        # so that at first a code's score is how near it is, but for what all vectors share
        with torch.no_grad():
            self.score.weight.copy_(self.codebook[:, :, None, None])
            self.score.bias = nn.Parameter(self.codebook.square().sum(dim=1) / -2)

    def quantize(self, vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None) -> Quantized:
        scores = self.score(vectors)
        # over uniform: log v − H
        shares = scores.softmax(dim=1)
        divergence = math.log(self.size) + (shares * scores.log_softmax(dim=1)).sum(dim=1, keepdim=True)
        counted = divergence if weights is None else divergence * weights
        loss = self.divergence * counted.sum() / _total_weight(vectors, weights, self.training)
        if not self.training:
            ids = scores.argmax(dim=1)
            return Quantized(ids, straight_through(self.lookup(ids), vectors), loss)
        shares = ((scores + self.noise * gumbel_like(scores)) / self.temperature).softmax(dim=1)
        ids = shares.argmax(dim=1)
        chosen = straight_through(F.one_hot(ids, self.size).movedim(-1, 1).to(shares.dtype), shares)
        return Quantized(ids, torch.einsum("bvhw,vc->bchw", chosen, self.codebook), loss)

    def lookup(self, ids: Int[Tensor, "b H W"]) -> Float[Tensor, "b c H W"]:
        return _lookup(ids, self.codebook)


def nearest_codes(vectors: Float[Tensor, "b c H W"], codebook: Float[Tensor, "v c"]) -> Int[Tensor, "b H W"]:
    """The nearest code of each vector, by squared distance; of equally near ones the first.

    The search is exhaustive, in pieces that never hold more than `MOST_DISTANCES` distances. It is as precise as matrix
    products are: on CUDA, `torch.set_float32_matmul_precision` decides.
    """
    codebook = codebook.detach().to(vectors.dtype)
    # around the codebook's center, where no digits are lost in the difference of large squares
    center = codebook.mean(dim=0)
    codebook = codebook - center
    rows = vectors.detach().movedim(1, -1).flatten(0, 2) - center
    norms = codebook.square().sum(dim=1)
    pieces = rows.split(max(1, MOST_DISTANCES // codebook.shape[0]))
    # one place for the distances of all pieces: a new one each time costs more than the search
    distances = rows.new_empty(len(pieces[0]), codebook.shape[0])
    # |x − e|² = |x|² + |e|² − 2 x·e, of which |x|² is the same for all codes; on a CPU, min is faster than argmin
    ids = [
        torch.addmm(norms, piece, codebook.T, alpha=-2, out=distances[: len(piece)]).min(dim=1).indices
        for piece in pieces
    ]
    return torch.cat(ids).view(vectors.shape[0], *vectors.shape[2:])


def mean_square(
    difference: Float[Tensor, "b c H W"],
    weights: Float[Tensor, "b 1 H W"] | None = None,
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """The mean of squares over elements, each place counting by its weight.

    Args:
        difference: What is squared.
        weights: Of the places; None for 1.
        total: What the weights sum to on an average process; None for their own sum.
    """
    squares = difference.square().mean(dim=1, keepdim=True)
    weighted = squares if weights is None else squares * weights
    return weighted.sum() / (_total_weight(difference, weights) if total is None else total)


def _attraction(
    vectors: Float[Tensor, "b c H W"],
    codes: Float[Tensor, "b c H W"],
    weights: Float[Tensor, "b 1 H W"] | None,
    total: Float[Tensor, ""],
    commitment: float,
) -> Float[Tensor, ""]:
    """What draws codes to their vectors, and by the weight `commitment` vectors to their codes."""
    loss = mean_square(codes - vectors.detach(), weights, total)
    return loss + commitment * mean_square(vectors - codes.detach(), weights, total)


def draw_without_replacement(weights: Float[Tensor, " n"], count: int) -> Int[Tensor, " count"]:
    """The indices of some of n things, each drawn in proportion to its weight."""
    # an exponential race; torch.multinomial would read the weights back to the host
    return (weights / torch.empty_like(weights).exponential_()).topk(count).indices


def _total_weight(
    vectors: Float[Tensor, "b c H W"], weights: Float[Tensor, "b 1 H W"] | None, together: bool = False
) -> Float[Tensor, ""]:
    """The sum of the weights of all places; together, its mean over the processes."""
    total = vectors.new_full((), vectors[:, 0].numel()) if weights is None else weights.sum()
    return mean_over_processes(total) if together else total


def _lookup(ids: Int[Tensor, "b H W"], codebook: Float[Tensor, "v c"]) -> Float[Tensor, "b c H W"]:
    return F.embedding(ids.long(), codebook).movedim(-1, 1).contiguous()


def _check(size: int, dimension: int, weight: float, name: str = "commitment") -> None:
    if size < 1:
        raise UserError(f"quantizer.size must be at least 1, not {size}")
    if dimension < 1:
        raise UserError(f"quantizer.dimension must be at least 1, not {dimension}")
    if weight < 0:
        raise UserError(f"quantizer.{name} must be at least 0, not {weight}")
