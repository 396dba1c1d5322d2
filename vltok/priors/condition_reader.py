"""How the transformers of a prior learn what an image is conditioned on: a text, or an embedding.

```
text ─ text encoder ──────┐
embedding ─ linear, norm ─┴─ vectors ◄─ learned queries ─► m keys and values of the image
                                                             ▲
token of the image ─ norm ─ query ── attention ──────────────┘ ─ linear ─(+)─► what a transformer reads
     └───────────────────────────────────────────────────────────────────┘
```

A few learned queries gather vectors of any number into m keys and values (Jaegle et al., 2021), and each token of the
image asks these before it goes to the transformer. So no sequence becomes longer, no step of drawing more, and any
transformer can be told.

Axis letters: b image, e number of an embedding, n row, t token (packed over the batch), s vector of a condition, m key,
d model width.
"""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.codes import Codes, Conditions
from vltok.errors import UserError, whole_number
from vltok.interfaces import TextEncoder
from vltok.nn.attention import Packing
from vltok.nn.linear import Linear
from vltok.nn.modes import evaluating

_MOST_HEADS = 8
#: Into how many vectors an embedding is taken apart, as in IP-Adapter (Ye et al., 2023, section 3.2.1).
_VECTORS = 4


@final
class EmbeddingEncoder(nn.Module):
    """An embedding → a few vectors, by a linear map and a norm, as IP-Adapter reads those of CLIP (Ye et al., 2023,
    section 3.2.1, https://arxiv.org/abs/2308.06721). It draws its own fresh weights.

    Args:
        size: How many numbers an embedding has.
        width: The width of the vectors.

    Raises:
        UserError: Embeddings without a number.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = whole_number("embedding_size", size, 1)
        self.width = width
        self.linear = Linear(size, _VECTORS * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, embeddings: Float[Tensor, "b e"]) -> tuple[Float[Tensor, "b s d"], Int[Tensor, " b"]]:
        """The vectors of each embedding, all of which count: see `TextEncoder.forward`."""
        vectors = self.linear(embeddings).unflatten(1, (_VECTORS, -1))
        return self.norm(vectors), torch.full((len(vectors),), _VECTORS, device=vectors.device)


@final
class ConditionReader(nn.Module):
    """Reads texts or embeddings, and tells them to the tokens of their images. It draws its own fresh weights.

    Args:
        encoder: Gives the vectors of a text, or of an embedding.
        width: The model width of the prior.
        keys: Into how many keys and values these are gathered.
    """

    @classmethod
    def of(cls, text_encoder: TextEncoder | None, embedding_size: int | None, width: int) -> ConditionReader | None:
        """The reader of what a prior's images are conditioned on; None where it is neither texts nor embeddings.

        Args:
            text_encoder: Gives the vectors of a text; None where no texts are read.
            embedding_size: How many numbers embeddings have; None where none are read.
            width: The model width of the prior.

        Raises:
            UserError: Texts and embeddings, or embeddings without a number.
        """
        if text_encoder is not None and embedding_size is not None:
            raise UserError(
                f"embedding_size is {embedding_size}, but a prior with a text_encoder reads texts alone: leave one out"
            )
        if embedding_size is not None:
            return cls(EmbeddingEncoder(embedding_size, width), width)
        return None if text_encoder is None else cls(text_encoder, width)

    def __init__(self, encoder: TextEncoder | EmbeddingEncoder, width: int, keys: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = math.gcd(width, _MOST_HEADS)
        # of the size of the vectors that they are compared with, so that each finds others from the beginning
        self.gathering = nn.Parameter(torch.randn(keys, encoder.width))
        self.key_value = Linear(encoder.width, 2 * width)
        #: The keys and values of an image without a condition.
        self.nothing = nn.Parameter(torch.zeros(keys, 2 * width))
        self.norm = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.out = Linear(width, width)
        nn.init.normal_(self.out.weight, std=0.02)  # about as loud as the embeddings to which it is added

    @property
    def embedding_size(self) -> int | None:
        """How many numbers the embeddings have that it reads; None where it reads texts."""
        return self.encoder.size if isinstance(self.encoder, EmbeddingEncoder) else None

    def forward(self, conditions: Conditions, labels: Int[Tensor, " b"]) -> Float[Tensor, "b m _"]:
        """The keys and values of each image, side by side, to learn from.

        Args:
            conditions: The text or the embedding of each image.
            labels: 1 for images that have none or whose own is hidden, else 0.
        """
        return torch.where((labels == 1)[:, None, None], self.nothing, self._gathered(conditions))

    def of_codes(self, codes: Codes, labels: Int[Tensor, " b"]) -> Float[Tensor, "b m _"]:
        """The same of what codes carry.

        Raises:
            UserError: They carry none.
        """
        return self(codes.require_conditions(self.embedding_size), labels)

    @torch.no_grad()
    def to_draw(self, conditions: Conditions, labels: Int[Tensor, " b"]) -> Float[Tensor, "b m _"]:
        """The same to draw from, whatever the mode and the precision around it."""
        with evaluating(self), torch.autocast(self.norm.weight.device.type, enabled=False):
            return self(conditions, labels)

    def told(
        self, tokens: Float[Tensor, "t d"], conditions: Float[Tensor, "b m _"], packing: Packing
    ) -> Float[Tensor, "t d"]:
        """Packed tokens that have asked the keys and values of their images."""
        queries = packing.padded(self.query(self.norm(tokens)))
        return tokens + self.out(packing.packed(self._attended(queries, conditions)))

    def told_each(self, tokens: Float[Tensor, "n d"], conditions: Float[Tensor, "b m _"]) -> Float[Tensor, "n d"]:
        """One token of each row, likewise; rows beyond those of the images, which guidance adds, have none."""
        images, *beyond = self.query(self.norm(tokens))[:, None].split(len(conditions))
        attended = [self._attended(images, conditions)]
        attended += [self._attended(rows, self.nothing.to(rows.dtype).expand(len(rows), -1, -1)) for rows in beyond]
        return tokens + self.out(torch.cat(attended)[:, 0])

    def _gathered(self, conditions: Conditions) -> Float[Tensor, "b m _"]:
        vectors, lengths = self.encoder(conditions)
        beyond = torch.arange(vectors.shape[1], device=vectors.device) >= lengths[:, None]
        scores = vectors @ self.gathering.T.to(vectors.dtype) / math.sqrt(vectors.shape[2])
        shares = scores.masked_fill(beyond[:, :, None], -torch.inf).softmax(1)
        gathered = shares.to(vectors.dtype).transpose(1, 2) @ vectors
        return self.key_value(gathered.flatten(0, 1)).unflatten(0, gathered.shape[:2])

    def of_rows(self, conditions: Float[Tensor, "b m _"], rows: int) -> Float[Tensor, "n m _"]:
        """The keys and values of so many rows, of which those beyond the images have none."""
        return torch.cat([conditions, self.nothing.to(conditions.dtype).expand(rows - len(conditions), -1, -1)])

    def _attended(self, queries: Float[Tensor, "b q d"], conditions: Float[Tensor, "b m _"]) -> Float[Tensor, "b q d"]:
        parts = (queries, *conditions.to(queries.dtype).chunk(2, dim=2))
        heads = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
