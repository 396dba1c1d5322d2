"""How the transformers of a prior learn what describes an image.

```
text ─ text encoder ─ vectors ◄─ learned queries ─► m keys and values of the image
                                                      ▲
token of the image ─ norm ─ query ── attention ───────┘ ─ linear ─(+)─► what a transformer reads
     └────────────────────────────────────────────────────────────┘
```

A few learned queries gather a text of any length into m keys and values (Jaegle et al., 2021), and each token of the
image asks these before it goes to the transformer. So no sequence becomes longer, no step of drawing more, and any
transformer can be told.

Axis letters: b image, n row, t token (packed over the batch), s vector of a text, m key, d model width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.interfaces import TextEncoder
from vltok.nn.attention import Packing
from vltok.nn.linear import Linear
from vltok.nn.modes import evaluating

_MOST_HEADS = 8


@final
class TextReader(nn.Module):
    """Reads texts, and tells them to the tokens of their images. It draws its own fresh weights.

    Args:
        encoder: Gives the vectors of a text.
        width: The model width of the prior.
        keys: Into how many keys and values a text is gathered.
    """

    def __init__(self, encoder: TextEncoder, width: int, keys: int = 16) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = math.gcd(width, _MOST_HEADS)
        # of the size of the vectors that they are compared with, so that each finds others from the beginning
        self.gathering = nn.Parameter(torch.randn(keys, encoder.width))
        self.key_value = Linear(encoder.width, 2 * width)
        #: The keys and values of an image without a text.
        self.nothing = nn.Parameter(torch.zeros(keys, 2 * width))
        self.norm = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.out = Linear(width, width)
        nn.init.normal_(self.out.weight, std=0.02)  # about as loud as the embeddings to which it is added

    def forward(self, texts: Sequence[str], labels: Int[Tensor, " b"]) -> Float[Tensor, "b m _"]:
        """The keys and values of each image, side by side, to learn from.

        Args:
            texts: What describes each image.
            labels: 1 for images that have no text or whose text is hidden, else 0.
        """
        return torch.where((labels == 1)[:, None, None], self.nothing, self._gathered(texts))

    @torch.no_grad()
    def to_draw(self, texts: Sequence[str], labels: Int[Tensor, " b"]) -> Float[Tensor, "b m _"]:
        """The same to draw from, whatever the mode and the precision around it."""
        with evaluating(self), torch.autocast(self.norm.weight.device.type, enabled=False):
            return self(texts, labels)

    def told(
        self, tokens: Float[Tensor, "t d"], texts: Float[Tensor, "b m _"], packing: Packing
    ) -> Float[Tensor, "t d"]:
        """Packed tokens that have asked the keys and values of their images."""
        queries = packing.padded(self.query(self.norm(tokens)))
        return tokens + self.out(packing.packed(self._attended(queries, texts)))

    def told_each(self, tokens: Float[Tensor, "n d"], texts: Float[Tensor, "b m _"]) -> Float[Tensor, "n d"]:
        """One token of each row, likewise; rows beyond those of the images, which guidance adds, have no text."""
        images, *beyond = self.query(self.norm(tokens))[:, None].split(len(texts))
        attended = [self._attended(images, texts)]
        attended += [self._attended(rows, self.nothing.to(rows.dtype).expand(len(rows), -1, -1)) for rows in beyond]
        return tokens + self.out(torch.cat(attended)[:, 0])

    def _gathered(self, texts: Sequence[str]) -> Float[Tensor, "b m _"]:
        vectors, lengths = self.encoder(texts)
        beyond = torch.arange(vectors.shape[1], device=vectors.device) >= lengths[:, None]
        scores = vectors @ self.gathering.T.to(vectors.dtype) / math.sqrt(vectors.shape[2])
        shares = scores.masked_fill(beyond[:, :, None], -torch.inf).softmax(1)
        gathered = shares.to(vectors.dtype).transpose(1, 2) @ vectors
        return self.key_value(gathered.flatten(0, 1)).unflatten(0, gathered.shape[:2])

    def of_rows(self, texts: Float[Tensor, "b m _"], rows: int) -> Float[Tensor, "n m _"]:
        """The keys and values of so many rows, of which those beyond the images have no text."""
        return torch.cat([texts, self.nothing.to(texts.dtype).expand(rows - len(texts), -1, -1)])

    def _attended(self, queries: Float[Tensor, "b q d"], texts: Float[Tensor, "b m _"]) -> Float[Tensor, "b q d"]:
        parts = (queries, *texts.to(queries.dtype).chunk(2, dim=2))
        heads = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
