"""The prior's contracts: it is no likelihood, and keeps what it is given."""

from vltok.codes import CodeSpec
from vltok.interfaces import Prior
from vltok.nn.transformer import Transformer
from vltok.priors.text_encoders import ByteEncoder
from vltok.testing import (
    AnyGridContract,
    ConditionalPriorContract,
    DescribedPriorContract,
    EmbeddedPriorContract,
    PriorContract,
)
from vltok_masked import Masked
from vltok_masked.transformer import Bidirectional


def masked(
    factors: tuple[int, ...] = (2, 1), codebook_size: int = 2, regions: tuple[int, int] | None = (1, 2), **options
) -> Masked:
    transformer, grain_transformer = Bidirectional(16, 2, 1, 0.0), Transformer(16, 2, 1, 0.0)
    return Masked(CodeSpec(codebook_size, factors, regions), transformer, grain_transformer, dropout=0.0, **options)


class TestMasked(PriorContract):
    def build(self) -> Prior:
        return masked()


class TestMaskedOfOneGranularity(PriorContract):
    def build(self) -> Prior:
        return masked((1,), 4)


class TestMaskedOfAnyGrid(AnyGridContract):
    def build(self) -> Prior:
        return masked(regions=None)


class TestMaskedOfTexts(DescribedPriorContract):
    def build(self, label_dropout: float) -> Prior:
        reader = ByteEncoder(Transformer(12, 2, 1, 0.0), longest=8)
        return masked(text_encoder=reader, label_dropout=label_dropout)


class TestMaskedOfEmbeddings(EmbeddedPriorContract):
    def build(self, label_dropout: float) -> Prior:
        return masked(embedding_size=3, label_dropout=label_dropout)


class TestMaskedOfClasses(ConditionalPriorContract):
    def build(self, classes: int, label_dropout: float) -> Prior:
        return masked(classes=classes, label_dropout=label_dropout)
