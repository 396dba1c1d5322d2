"""Texts beside codes: the language model's own tokens of them, before which or after which codes stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, LogitsProcessor

from vltok.errors import UserError, one_line, whole_number

_BYTES = 256


@dataclass(frozen=True)
class Texts:
    """How texts are read and written.

    Attributes:
        longest: The most tokens of a text; the rest of a longer one is left out.
        captions: The share of described images whose codes training shows first, to learn the text that follows them;
            of the others it learns the codes that follow the text. In [0, 1].
        tokenizer: A tokenizer as the JSON of the library tokenizers, which bundles hold; where None, that of
            `pretrained`, or the bytes of UTF-8 with `architecture`.

    Raises:
        UserError: A value outside its range.
    """

    longest: int = 64
    captions: float = 0.25
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        whole_number("texts.longest", self.longest, 1)
        if not 0 <= self.captions <= 1:
            raise UserError(f"texts.captions must lie in [0, 1], not {self.captions}")


class TextTokens:
    """The tokens of texts, from 0 on; what a `Conditioning` reads texts by.

    Args:
        texts: How they are read.
        pretrained: The model whose tokenizer it is, where `texts` has none; None for bytes.

    Raises:
        UserError: There is no such tokenizer.
    """

    embedding_size = None  # it reads no embeddings

    def __init__(self, texts: Texts, pretrained: str | None) -> None:
        self.texts = texts
        self._tokenizer = _tokenizer(texts, pretrained)

    @property
    def size(self) -> int:
        """How many there are."""
        return _BYTES if self._tokenizer is None else self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def standalone_arguments(self) -> dict[str, Any]:
        """What builds them without a pretrained model."""
        tokenizer = None if self._tokenizer is None else self._tokenizer.to_str()
        return {**asdict(self.texts), "tokenizer": tokenizer}

    def padded(self, texts: Sequence[str], device: torch.device, end: int | None = None) -> Int[Tensor, "b p"]:
        """The tokens of texts, -1 beyond them; an end stands behind those that are whole."""
        rows = [self._ids(text) + ([] if end is None else [end]) for text in texts]
        rows = [row[: self.texts.longest] for row in rows]
        width = max(map(len, rows), default=0)
        padded = torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.long)
        return padded.view(len(rows), width).to(device, non_blocking=True)

    def to_draw(self, texts: Sequence[str], labels: Int[Tensor, " b"]) -> Int[Tensor, "b p"]:
        """The tokens of texts, none where `labels` is 1."""
        return self.padded(texts, labels.device).masked_fill((labels == 1)[:, None], -1)

    def text(self, ids: Sequence[int]) -> str:
        """What tokens say."""
        if self._tokenizer is None:
            return bytes(ids).decode("utf-8", "replace")
        return self._tokenizer.decode(list(ids))

    def _ids(self, text: str) -> list[int]:
        if self._tokenizer is None:
            return list(text.encode("utf-8"))
        return self._tokenizer.encode(text, add_special_tokens=False).ids


class TextAlone(LogitsProcessor):
    """Leaves `generate` nothing but tokens of text, and an end.

    Args:
        size: How many tokens texts have.
        end: The token that ends one.
    """

    def __init__(self, size: int, end: int) -> None:
        self.size = size
        self.end = end

    def __call__(self, input_ids: Int[Tensor, "n t"], scores: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
        """The logits, with -inf for what is no text."""
        return of_texts(scores, self.size, self.end)


def of_texts(logits: Float[Tensor, "n v"], size: int, end: int) -> Float[Tensor, "n v"]:
    """Logits with -inf for all but so many tokens of text, and an end."""
    tokens = torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill((tokens >= size) & (tokens != end), -torch.inf)


def to_the_right(tokens: Int[Tensor, "b t"]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Rows with what is no token, which is below 0, moved to the left and made 0; and which are tokens."""
    order = (tokens >= 0).long().argsort(dim=1, stable=True)
    moved = tokens.gather(1, order)
    return moved.clamp(min=0), moved >= 0


def _tokenizer(texts: Texts, pretrained: str | None) -> Tokenizer | None:
    if texts.tokenizer is None and pretrained is None:
        return None
    try:
        if texts.tokenizer is not None:
            tokenizer = Tokenizer.from_str(texts.tokenizer)
        else:
            tokenizer = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False).backend_tokenizer
    except Exception as error:  # both raise errors of many kinds
        where = "texts.tokenizer" if pretrained is None else f"texts: that of pretrained '{pretrained}'"
        raise UserError(f"{where} is no tokenizer of the library tokenizers: {one_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
