"""Priors of tiny transformers."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vltok.codes import CodeSpec
from vltok.interfaces import Prior
from vltok.nn.transformer import Transformer
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.global_local import GlobalLocal
from vltok.priors.raster_scan import RasterScan
from vltok.priors.sequence import SequencePrior
from vltok.priors.text_encoders import ByteEncoder

#: The transformers of each prior.
TRANSFORMERS: dict[type[Prior], tuple[str, ...]] = {
    DQTransformer: ("position_transformer", "content_transformer"),
    RasterScan: ("position_transformer", "content_transformer"),
    GlobalLocal: ("global_transformer", "local_transformer"),
    SequencePrior: ("transformer",),
}


def tiny_text_encoder() -> ByteEncoder:
    """A text encoder of one layer that reads eight bytes."""
    return ByteEncoder(Transformer(width=12, heads=2, layers=1, dropout=0.1), longest=8)


def write_bert(folder: Path) -> None:
    """Write a tiny text model of Hugging Face's, with weights as they are drawn, and a tokenizer of letters."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    letters = {token: number for number, token in enumerate(["[UNK]", "[PAD]", "[CLS]", *string.ascii_lowercase])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(letters, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(letters), max_position_embeddings=8, **sizes)
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)


def tiny_prior(
    kind: type[Prior],
    codebook_size: int = 13,
    factors: Sequence[int] = (2, 1),
    regions: tuple[int, int] | None = (2, 3),
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
