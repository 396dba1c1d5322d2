"""Codes → sequences → codes, and what may follow what."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.codes import Codes, CodeSpec
from vltok.errors import UserError
from vltok.interfaces import SamplingConfig
from vltok.testing import random_codes
from vltok_causal_lm.serialization import Serialization, serialization_of

FACTORS = [(1,), (16,), (2, 1), (16, 8), (4, 2, 1), (8, 1), (12, 4, 2)]


@st.composite
def specs(draw: st.DrawFn) -> CodeSpec:
    size = draw(st.integers(1, 20))
    if draw(st.booleans()):
        return CodeSpec(size, max_length=draw(st.integers(1, 12)))
    return CodeSpec(size, draw(st.sampled_from(FACTORS)), draw(st.tuples(st.integers(1, 3), st.integers(1, 3))))


def taken_before(serialization: Serialization, tokens: torch.Tensor) -> torch.Tensor:
    taken = serialization.taken(tokens)
    return taken.cumsum(1) - taken


@settings(deadline=None, max_examples=60)
@given(specs(), st.integers(1, 5), st.integers(0, 99))
def test_codes_come_back(spec, images, seed):
    codes, serialization = random_codes(spec, images, seed), serialization_of(spec)
    sequences = serialization(codes)
    assert sequences.tokens.shape[1] <= serialization.longest
    assert sequences.present.sum() == codes.ids.numel() + images * serialization.structures_per_image
    # what is no token must be passed over: a start stands for it
    tokens = sequences.tokens.masked_fill(~sequences.present, spec.codebook_size + serialization.structures)
    back = serialization.codes(tokens).validate(spec)
    assert back.equal(codes)


@settings(deadline=None, max_examples=60)
@given(specs(), st.integers(1, 5), st.integers(0, 99))
def test_every_token_of_codes_is_legal_and_nothing_follows_the_last(spec, images, seed):
    codes, serialization = random_codes(spec, images, seed), serialization_of(spec)
    sequences, grammar = serialization(codes), serialization.grammar(SamplingConfig())
    before = taken_before(serialization, sequences.tokens)[sequences.present]
    choices = serialization.choices(sequences.tokens[sequences.present])
    assert grammar.legal(before).gather(1, choices[:, None]).all()
    whole = (serialization.taken(sequences.tokens) * sequences.present[..., None]).sum(1)
    assert not grammar.legal(whole).any()


@settings(deadline=None, max_examples=60)
@given(specs(), st.integers(0, 99))
def test_whatever_is_legal_ends_in_codes(spec, seed):
    """A walk that takes any legal choice makes an image, and never gets stuck."""
    serialization, generator = serialization_of(spec), torch.Generator().manual_seed(seed)
    grammar = serialization.grammar(SamplingConfig())
    tokens = torch.zeros(4, 0, dtype=torch.long)
    for _ in range(serialization.longest):
        legal = grammar.legal(serialization.taken(tokens).sum(1))
        stays = ~legal.any(1)
        choice = torch.multinomial((legal | stays[:, None]).float(), 1, generator=generator)[:, 0]
        token = torch.where(choice == 0, spec.codebook_size - 1, spec.codebook_size - 1 + choice)
        token = token.masked_fill(stays, spec.codebook_size + serialization.structures)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
    assert not grammar.legal(serialization.taken(tokens).sum(1)).any()
    assert len(serialization.codes(tokens).validate(spec)) == 4


def test_a_sequence_on_a_grid_goes_region_by_region():
    spec = CodeSpec(10, (2, 1), (2, 2))
    grains = torch.tensor([[[0, 1], [0, 0]]])
    # packed codes go from coarse to fine: regions 0, 2 and 3, then the four of region 1
    codes = Codes(torch.tensor([7, 5, 9, 3, 1, 4, 1]), torch.tensor([7]), grains)
    sequences = serialization_of(spec)(codes)
    assert sequences.tokens.tolist() == [[10, 7, 11, 3, 1, 4, 1, 10, 5, 10, 9]]
    assert sequences.present.all()


def test_a_sequence_on_no_grid_has_an_end():
    spec = CodeSpec(10, max_length=3)
    codes = Codes(torch.tensor([7, 3, 1, 4]), torch.tensor([1, 3]))
    sequences = serialization_of(spec)(codes)
    assert sequences.tokens.tolist() == [[7, 10, 0, 0], [3, 1, 4, 10]]
    assert sequences.present.tolist() == [[True, True, False, False], [True, True, True, True]]


def test_no_two_images_have_the_same_sequence():
    spec = CodeSpec(2, (2, 1), (1, 2))
    seen = set()
    for grains in itertools.product(range(2), repeat=2):
        length = sum((1, 4)[grain] for grain in grains)
        ids = torch.tensor(list(itertools.product(range(2), repeat=length)))
        codes = Codes(
            ids.flatten(), torch.full((len(ids),), length), torch.tensor(grains).view(1, 1, 2).expand(len(ids), -1, -1)
        )
        seen |= {tuple(tokens) for tokens in serialization_of(spec)(codes).tokens.tolist()}
    assert len(seen) == 4 + 2 * 32 + 256


@pytest.mark.parametrize(
    ("spec", "codes", "message"),
    [
        (CodeSpec(9, (2, 1), (1, 2)), Codes(torch.tensor([1]), torch.tensor([1])), "no grid"),
        (CodeSpec(9, (2, 1), (1, 2)), random_codes(CodeSpec(9, (2, 1), (2, 2)), 2), "set its `regions`"),
        (CodeSpec(9, max_length=3), random_codes(CodeSpec(9, (1,), (1, 2)), 2), "set its `factors` and `regions`"),
        (CodeSpec(9, max_length=3), Codes(torch.zeros(5).long(), torch.tensor([4, 1])), "from 1 to 4 codes an image"),
        (CodeSpec(9, max_length=3), Codes(torch.zeros(2).long(), torch.tensor([0, 2])), "from 0 to 2 codes an image"),
    ],
)
def test_codes_of_another_kind_are_refused(spec, codes, message):
    with pytest.raises(UserError, match=message):
        serialization_of(spec)(codes)


def test_a_spec_must_say_how_long_images_are():
    with pytest.raises(UserError, match="regions is missing"):
        serialization_of(CodeSpec(9, (2, 1)))
    with pytest.raises(UserError, match="max_length is missing"):
        serialization_of(CodeSpec(9))
    with pytest.raises(UserError, match="have 2 ids each, and a language model reads one token for a code"):
        serialization_of(CodeSpec(9, max_length=5, codebooks=2))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"codes": 0}, "codes is 0, but images have from 1 to 5 codes"),
        ({"codes": 6}, "codes is 6, but images have from 1 to 5 codes"),
        ({"max_codes": 0}, "max_codes is 0"),
        ({"ratios": {1: 1.0}}, r"ratios is .* leave it out"),
    ],
)
def test_lengths_that_no_image_has_are_refused(option, message):
    with pytest.raises(UserError, match=message):
        serialization_of(CodeSpec(9, max_length=5)).grammar(SamplingConfig(**option))
