"""Drawing with `generate` that stays legal.

A step is two decisions: which choice to take (go on with a code, or a token of structure), and which code. The
probability of a token is the product of both, as the softmax over all legal tokens has it:

```
logits  c₀ c₁ … c_{v-1} │ s₁ … s_m │ starts
        └─ logsumexp ─┐      │
choices               s₀    s₁ … s_m   softmax over the legal ones
codes   c₀ c₁ … c_{v-1}                softmax, where choice 0 is taken
```
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from vltok.drawing.config import VariableLengthSampling
from vltok.drawing.sampling import Guidance, draw_content, draw_position, uniforms
from vltok_causal_lm.serialization import Grammar, Serialization


@dataclass(frozen=True)
class Beside:
    """Where the tokens of codes stand beside those of texts.

    Attributes:
        texts: How many tokens texts have, which come first.
        prompt: How many tokens of a sequence come before the start of its codes.
    """

    texts: int = 0
    prompt: int = 0

    def tokens(self, input_ids: Int[Tensor, "n t"]) -> Int[Tensor, "n s"]:
        """The start of each sequence and what follows it, as a `Serialization` has them."""
        return input_ids[:, self.prompt :] - self.texts


class LegalDraw(LogitsProcessor):
    """Draws the next token of each image among the legal ones, each from a random stream of its own, and leaves
    `generate` nothing but that one.

    Args:
        serialization: What tokens mean.
        grammar: What may follow.
        sampling: Its temperature, top-k and top-p are those of codes; those of positions are those of choices.
        guidance: With a scale other than 1, sequences come twice: with their class, and without.
        streams: The random stream of each image.
        beside: Where the tokens of codes stand.
    """

    def __init__(
        self,
        serialization: Serialization,
        grammar: Grammar,
        sampling: VariableLengthSampling,
        guidance: Guidance,
        streams: Int[Tensor, " b"],
        beside: Beside,
    ) -> None:
        self.serialization = serialization
        self.grammar = grammar
        self.sampling = sampling
        self.guidance = guidance
        self.streams = streams
        self.beside = beside

    def __call__(self, input_ids: Int[Tensor, "n t"], scores: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
        """Logits that leave one token: a start, which means nothing, where an image is complete."""
        serialization = self.serialization
        logits = self.guidance.logits(scores[:, self.beside.texts :])
        tokens = self.beside.tokens(input_ids)[: len(logits)]
        legal = legal_choices(tokens, serialization, self.grammar)
        complete = ~legal.any(1)
        noise = self._noise(tokens.shape[1] - 1)
        allowed = legal | complete[:, None]
        scored = serialization.choice_logits(logits).masked_fill(~allowed, -torch.inf)
        choice = draw_position(scored, self.sampling, noise[:, 0])
        code = draw_content(logits[:, : serialization.codebook_size], self.sampling, noise[:, 1])
        token = torch.where(choice == 0, code, serialization.codebook_size - 1 + choice)
        token = token.masked_fill(complete, serialization.codebook_size + serialization.structures) + self.beside.texts
        return torch.full_like(scores, -torch.inf).scatter(1, self.guidance.rows(token)[:, None], 0.0)

    def _noise(self, step: int) -> Float[Tensor, "b 2"]:
        """The step's random numbers of each image, uniform in [0, 1)."""
        numbers = 2 * step + torch.arange(2, device=self.streams.device)
        return uniforms(self.streams[:, None].expand(-1, 2), numbers.expand(len(self.streams), -1))


class AllComplete(StoppingCriteria):
    """Says which sequences are complete.

    Args:
        serialization: What tokens mean.
        grammar: What may follow.
        beside: Where the tokens of codes stand.
    """

    def __init__(self, serialization: Serialization, grammar: Grammar, beside: Beside) -> None:
        self.serialization = serialization
        self.grammar = grammar
        self.beside = beside

    def __call__(self, input_ids: Int[Tensor, "n t"], scores: object, **_: object) -> Bool[Tensor, " n"]:
        """Whether nothing may follow."""
        return ~legal_choices(self.beside.tokens(input_ids), self.serialization, self.grammar).any(1)


def legal_choices(tokens: Int[Tensor, "n t"], serialization: Serialization, grammar: Grammar) -> Bool[Tensor, "n c"]:
    """Which choices may follow sequences; none where they are complete."""
    return grammar.legal(serialization.taken(tokens).sum(1))
