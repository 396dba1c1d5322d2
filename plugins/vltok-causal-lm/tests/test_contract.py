"""The priors' contracts, over several architectures, on a grid and on none."""

from vltok.codes import CodeSpec
from vltok.interfaces import Prior
from vltok.testing import ConditionalPriorContract, DescribedPriorContract, PriorContract
from vltok_causal_lm import CausalLM, Texts

LLAMA = {
    "architecture": "llama",
    "options": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}
GPT2 = {
    "architecture": "gpt2",
    "options": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "embd_pdrop": 0.0},
}
GRID = {"spec": CodeSpec(2, (2, 1), (1, 2))}
NO_GRID = {"spec": CodeSpec(3, max_length=4)}


class TestLlamaOnAGrid(PriorContract):
    read_backs = None  # transformers looks after every token

    def build(self) -> Prior:
        return CausalLM(**GRID, **LLAMA)


class TestLlamaOnNoGrid(PriorContract):
    read_backs = None  # transformers looks after every token

    def build(self) -> Prior:
        return CausalLM(**NO_GRID, **LLAMA)


class TestGPT2OnAGrid(PriorContract):
    read_backs = None  # transformers looks after every token

    def build(self) -> Prior:
        return CausalLM(**GRID, **GPT2)


class TestGPT2OnNoGrid(PriorContract):
    read_backs = None  # transformers looks after every token

    def build(self) -> Prior:
        return CausalLM(**NO_GRID, **GPT2)


class TestLlamaWithClasses(ConditionalPriorContract):
    read_backs = None  # transformers looks after every token

    def build(self, classes: int, label_dropout: float) -> Prior:
        return CausalLM(**GRID, **LLAMA, classes=classes, label_dropout=label_dropout)


class TestGPT2WithClasses(ConditionalPriorContract):
    read_backs = None  # transformers looks after every token

    def build(self, classes: int, label_dropout: float) -> Prior:
        return CausalLM(**NO_GRID, **GPT2, classes=classes, label_dropout=label_dropout)


class TestLlamaOfTexts(DescribedPriorContract):
    read_backs = None  # transformers looks after every token

    def build(self, label_dropout: float) -> Prior:
        return CausalLM(**GRID, **LLAMA, label_dropout=label_dropout, texts=Texts(longest=24, captions=0.5))
