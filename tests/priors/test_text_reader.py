"""What the tokens of images are told of their texts."""

import torch
from torch import nn
from torch.testing import assert_close

from vltok.nn.attention import Packing
from vltok.nn.transformer import Transformer
from vltok.priors.text_encoders import ByteEncoder
from vltok.priors.text_reader import TextReader

TEXTS = ["a cat", "", "two dogs"]


def test_a_step_tells_each_row_what_a_sequence_tells_it_and_rows_beyond_the_images_nothing() -> None:
    reader = TextReader(ByteEncoder(Transformer(8, 2, 1, 0.0)), 16, keys=3).eval()
    nn.init.normal_(reader.nothing)
    labels = torch.tensor([0, 1, 0])
    texts = reader.to_draw(TEXTS, labels)
    assert texts[1].equal(reader.nothing) and texts.equal(reader(TEXTS, labels))
    tokens = torch.randn(6, 16)
    told = reader.told_each(tokens, texts)
    assert told.equal(reader.told(tokens, reader.of_rows(texts, 6), Packing(torch.ones(6).long(), [1] * 6)))
    assert_close(told[:3], reader.told_each(tokens[:3], texts))
    assert_close(told[3:], reader.told_each(tokens[3:], reader.nothing.expand(3, -1, -1)))
    assert not torch.allclose(told[0] - tokens[0], told[3] - tokens[3])
