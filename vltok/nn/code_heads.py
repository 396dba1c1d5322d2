"""Codes of several ids: what reads them, and what predicts one id of a code after another.

Axis letters: n token, d model width, v vocabulary, q id of a code (no axis where there is one codebook).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.nn.heads import Head
from vltok.nn.linear import Linear


def embed_codes(tables: nn.Embedding, ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n d"]:
    """The sum of the embeddings of a code's ids.

    Args:
        tables: One for each codebook, of one size, one after another in one matrix.
        ids: Of codes; of special tokens, the same one in each codebook.
    """
    if ids.dim() == 1:
        return tables(ids)
    codebooks = ids.shape[1]
    first = torch.arange(codebooks, device=ids.device) * (tables.num_embeddings // codebooks)
    return tables(ids + first).sum(dim=1)


class CodeHead(Head):
    """A head for codes of one or several ids: the first is predicted as by `Head`, each later one given those before.

    After the depth transformer of RQ-Transformer (Lee et al. 2022, section 3.2, https://arxiv.org/abs/2203.01941). The
    ids of a code are few, and each codebook is another one: instead of attention, a network of its own for each id
    takes the hidden state on to the next. The probabilities of a code's ids multiply to that of the code.

    Args:
        width: Model width.
        size: Number of logits of each id.
        norm: Makes the norm of a width.
        codebooks: How many ids a code has.
    """

    def __init__(
        self, width: int, size: int, norm: Callable[[int], nn.Module] = nn.LayerNorm, codebooks: int = 1
    ) -> None:
        super().__init__(width, size, norm)
        self.codebooks = codebooks
        self.later: Iterable[Any] = nn.ModuleList(LaterId(width, size, norm) for _ in range(codebooks - 1))

    def code_logits(self, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n *q"]) -> Float[Tensor, "n *q v"]:
        """The logits of each id, given those before it."""
        given, logits = iter(ids.view(len(ids), -1).unbind(dim=1)), list[Tensor]()

        def choose(found: Tensor) -> Tensor:
            logits.append(found)
            return next(given)

        self.walk(hidden, choose)
        return torch.stack(logits, dim=1) if self.codebooks > 1 else logits[0]

    def code_nats(self, hidden: Float[Tensor, "n d"], ids: Int[Tensor, " n *q"]) -> Float[Tensor, " n"]:
        """What each code costs, −ln p: the sum of what its ids cost. See `Head.nats`."""
        before, *others = ids.view(len(ids), -1).unbind(dim=1)
        nats = self.nats(hidden, before)
        for later, id in zip(self.later, others, strict=True):
            hidden = later(hidden, before)
            nats, before = nats + later.head.nats(hidden, id), id
        return nats

    def walk(
        self, hidden: Float[Tensor, "n d"], choose: Callable[[Float[Tensor, "n v"]], Int[Tensor, " n"]]
    ) -> Int[Tensor, " n *q"]:
        """The ids that are chosen, one after another.

        Args:
            hidden: What the codes follow from.
            choose: Is given the logits of an id, and gives the id.
        """
        ids = [choose(self(hidden))]
        for later in self.later:
            hidden = later(hidden, ids[-1])
            ids.append(choose(later.head(hidden)))
        return torch.stack(ids, dim=1) if self.codebooks > 1 else ids[0]


class LaterId(nn.Module):
    """What an id of a code follows from, given the one before it, and its head.

    Args:
        width: Model width.
        size: Number of logits.
        norm: Makes the norm of a width.
    """

    def __init__(self, width: int, size: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        # each is normed, so that from the first step on the id weighs as much as all else that is known
        self.id_norm = norm(width)
        self.hidden_norm = norm(width)
        self.feedforward_norm = norm(width)
        self.feedforward_in = Linear(width, 4 * width)
        self.feedforward_out = Linear(4 * width, width)
        self.head = Head(width, size, norm)

    def forward(self, hidden: Float[Tensor, "n d"], before: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The hidden state after the id before."""
        hidden = self.hidden_norm(hidden) + self.id_norm(self.embedding(before))
        return hidden + self.feedforward_out(F.gelu(self.feedforward_in(self.feedforward_norm(hidden))))
