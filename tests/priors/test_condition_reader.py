"""What the tokens of images are told of their texts and embeddings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from torch import nn
from torch.testing import assert_close

from vltok.codes import Codes
from vltok.errors import UserError
from vltok.nn.attention import Packing
from vltok.nn.transformer import Transformer
from vltok.priors.condition_reader import ConditionReader
from vltok.priors.sequence import SequencePrior
from vltok.priors.text_encoders import ByteEncoder

from ..tiny_priors import tiny_prior, tiny_text_encoder

TEXTS = ["a cat", "", "two dogs"]


def test_a_step_tells_each_row_what_a_sequence_tells_it_and_rows_beyond_the_images_nothing() -> None:
    reader = ConditionReader(ByteEncoder(Transformer(8, 2, 1, 0.0)), 16, keys=3).eval()
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


def test_the_embeddings_of_unseen_pictures_matter() -> None:
    """The codes are the greys of 4 × 4 cells of a picture, and its embedding the colours of 2 × 2."""
    photograph, chance = Image.fromarray(photographs.coffee()), np.random.default_rng(0)
    corners = chance.integers([photograph.width - 32, photograph.height - 32], size=(360, 2)).tolist()
    pictures = [photograph.crop((left, top, left + 32, top + 32)) for left, top in corners]
    small = [picture.resize((4, 4), Image.Resampling.BOX) for picture in pictures]
    greys = torch.tensor(np.stack([np.asarray(picture.convert("L")) // 16 for picture in small])).long()
    colours = np.stack([np.asarray(picture.resize((2, 2), Image.Resampling.BOX)) for picture in pictures])
    embeddings = torch.tensor(colours.reshape(len(pictures), -1) / 64 - 2).float()
    codes = Codes(greys.flatten(), torch.full((360,), 16), torch.zeros_like(greys), embeddings=embeddings)
    train, unseen = codes[:300], codes[300:]
    losses = {}
    for size in (None, 12):
        torch.manual_seed(0)
        prior = tiny_prior(SequencePrior, 16, (1,), (4, 4), width=32, embedding_size=size)
        optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            prior.loss(train[torch.randperm(len(train))[:100]]).total.backward()
            optimizer.step()
        losses[size] = prior.eval().loss(unseen).total
    others = prior.loss(replace(unseen, embeddings=unseen.embeddings.flip(0))).total
    assert losses[12] < 0.9 * losses[None] < 0.9 * others


def test_a_prior_reads_one_kind_of_condition() -> None:
    with pytest.raises(UserError, match="embedding_size is 3, but a prior with a text_encoder reads texts alone"):
        tiny_prior(SequencePrior, factors=(1,), text_encoder=tiny_text_encoder(), embedding_size=3)
    with pytest.raises(UserError, match="classes is 2, but a prior with an embedding_size knows none: leave classes"):
        tiny_prior(SequencePrior, factors=(1,), classes=2, embedding_size=3)
    for size in (0, -1):
        with pytest.raises(UserError, match="embedding_size must be"):
            tiny_prior(SequencePrior, factors=(1,), embedding_size=size)
