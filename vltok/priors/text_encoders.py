"""Text encoders: one that is trained with its prior, and those of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vltok.errors import UserError, one_line, whole_number
from vltok.interfaces import TextEncoder
from vltok.links import Default
from vltok.nn.attention import Packing
from vltok.nn.modes import evaluating
from vltok.nn.sequence_model import SequenceModel
from vltok.nn.transformer import Transformer, initialise

#: Stands before the bytes, so that an empty text has a vector too.
_START = 256


class ByteEncoder(TextEncoder):
    """A small transformer over the bytes of a text in UTF-8, trained with its prior: there is nothing to download.

    It is causal, as CLIP's text encoder is (Radford et al., 2021): a vector tells of the bytes up to its own.

    Args:
        transformer: Walks over the bytes.
        longest: The most bytes that are read of a text.

    Raises:
        UserError: Not a byte is read.
    """

    links = (
        Default("transformer.width", 256),
        Default("transformer.heads", 4),
        Default("transformer.layers", 2),
    )

    def __init__(self, transformer: Transformer | SequenceModel, longest: int = 256) -> None:
        super().__init__()
        self.longest = whole_number("longest", longest, 1)
        self.byte_embedding = nn.Embedding(_START + 1, transformer.width)
        self.step_embedding = nn.Embedding(1 + longest, transformer.width)
        # bytes as large as what a norm gives: in small ones, what training adds to all would drown what texts differ in
        nn.init.normal_(self.step_embedding.weight, std=0.3)
        self.transformer = transformer
        self.norm = transformer.head_norm(transformer.width)
        initialise(nn.ModuleList([transformer]))

    @property
    def width(self) -> int:
        """The transformer's."""
        return self.transformer.width

    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, "b s d"], Int[Tensor, " b"]]:
        """A vector for the start of each text and for each of its bytes."""
        device = self.byte_embedding.weight.device
        encoded = [text.encode("utf-8")[: self.longest] for text in texts]
        known = [1 + len(text) for text in encoded]
        lengths = torch.tensor(known).to(device, non_blocking=True)
        tokens = torch.tensor([token for text in encoded for token in (_START, *text)]).to(device, non_blocking=True)
        packing = Packing(lengths, known)
        hidden = self.transformer(self.byte_embedding(tokens) + self.step_embedding(packing.steps), packing)
        return packing.padded(self.norm(hidden)), lengths


class HuggingFaceEncoder(TextEncoder):
    """A text encoder of Hugging Face's transformers, as it was trained: a prior's training leaves its weights alone.

    Of a model that has more parts, such as CLIP or T5, that which reads texts is taken. A bundle of the prior names the
    model: whoever loads it needs that too, and says so by `trust`.

    Args:
        pretrained: A folder, or the id of a model on the Hugging Face Hub, of which only safetensors are read.
        longest: The most tokens that are read of a text.

    Raises:
        UserError: transformers is not installed, or the model or its tokenizer is not to be had.
    """

    def __init__(self, pretrained: str, longest: int = 64) -> None:
        super().__init__()
        self.longest = whole_number("longest", longest, 1)
        try:
            from transformers import AutoModel, AutoTokenizer
        except ModuleNotFoundError as error:
            raise UserError(f"text_encoder huggingface: {error}; pip install 'vltok[huggingface]'") from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(pretrained, trust_remote_code=False)
            model = AutoModel.from_pretrained(pretrained, use_safetensors=True, trust_remote_code=False)
        except Exception as error:  # the Hub's client raises errors of its own, and those of whatever carries them
            raise UserError(
                f"text_encoder.pretrained is '{pretrained}', which is not to be had ({one_line(error)}): give a folder "
                "with config.json, model.safetensors and the files of its tokenizer, or an id on the Hub"
            ) from error
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        reads = model.get_encoder() if model.config.is_encoder_decoder else getattr(model, "text_model", model)
        self.model = reads.float().requires_grad_(False)

    @property
    def width(self) -> int:
        """The model's."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, "b s d"], Int[Tensor, " b"]]:
        """The last hidden states of the model, in evaluation mode."""
        # where a text is empty, some tokenizers give nothing at all
        given = [text or " " for text in texts]
        tokens = self.tokenizer(given, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        device = self.model.device
        ids, there = (tokens[name].to(device, non_blocking=True) for name in ("input_ids", "attention_mask"))
        with evaluating(self.model):
            return self.model(input_ids=ids, attention_mask=there).last_hidden_state, there.sum(1)
