"""The entropy coder of whole numbers."""

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vltok.compression.coding import Alphabet, CutDecoder, Decoder, Encoder
from vltok.compression.frequencies import TOTAL, quantized
from vltok.errors import UserError


def frequencies(weights: list[float]) -> np.ndarray:
    return quantized(np.array(weights))


@st.composite
def messages(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray]]:
    """Runs of symbols, each with the frequencies of its alphabet."""
    runs = []
    for _ in range(draw(st.integers(0, 5))):
        weights = draw(st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(lambda found: sum(found) > 0))
        symbols = draw(st.lists(st.integers(0, len(weights) - 1), max_size=40))
        runs.append((np.array(symbols, dtype=np.int64), frequencies(weights)))
    return runs


def encoded(runs: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    encoder = Encoder()
    for symbols, alphabet in runs:
        encoder.add(symbols, Alphabet(alphabet))
    return encoder.finish()


@settings(max_examples=100)
@given(messages())
def test_symbols_come_back_from_the_fewest_bytes(runs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    data = encoded(runs)
    decoder = Decoder(data)
    for symbols, alphabet in runs:
        assert np.array_equal(decoder.take(len(symbols), Alphabet(alphabet)), symbols)
    bits = sum(-np.log2(alphabet[symbols] / TOTAL).sum() for symbols, alphabet in runs)
    # the coder rounds its interval down by less than one part in 2⁸ a word
    assert len(data) <= math.ceil((bits + 0.01 * len(data) + 1) / 8)
    assert not data or data[-1] != 0, "a zero at the end says nothing"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50).filter(lambda weights: sum(weights) > 0))
def test_frequencies_are_whole_and_everything_may_occur(weights: list[float]) -> None:
    found = frequencies(weights)
    assert found.sum() == TOTAL and found.min() >= 1
    shares = np.array(weights) / sum(weights)
    assert np.abs(found / TOTAL - shares).max() <= (len(weights) + 2) / TOTAL


def test_the_coder_uses_the_frequencies_as_they_are() -> None:
    # of an alphabet of which one symbol has all but the least, a million cost what its frequency says
    frequencies = np.array([1, TOTAL - 2, 1])
    encoder = Encoder()
    encoder.add(np.ones(10**6, dtype=np.int64), Alphabet(frequencies))
    assert len(encoder.finish()) == 1
    encoder = Encoder()
    encoder.add(np.full(1000, 2), Alphabet(frequencies))
    assert len(encoder.finish()) in (3000, 3001)


def test_any_bytes_are_symbols_or_told_as_damage() -> None:
    alphabet = Alphabet(frequencies([1.0, 2.0, 3.0]))
    for data in (b"", b"\xff" * 40, bytes(range(256))):
        try:
            assert Decoder(data).take(200, alphabet).max() <= 2
        except UserError as error:
            assert "damaged" in str(error)


@settings(max_examples=50)
@given(messages(), st.floats(0, 1), st.binary(max_size=40))
@example([(np.array([1, 0, 0, 0, 1]), np.array([1, TOTAL - 1]))], 0.5, b"")
def test_a_beginning_says_the_symbols_that_all_ends_would_give(
    runs: list[tuple[np.ndarray, np.ndarray]], share: float, end: bytes
) -> None:
    data = encoded(runs)
    beginning = data[: int(share * len(data))]
    cut = CutDecoder(beginning)
    ends = [Decoder(beginning + each) for each in (b"", end, b"\xff" * 1024)]
    for symbols, alphabet in map(lambda run: (run[0], Alphabet(run[1])), runs):
        found = cut.take(len(symbols), alphabet)
        assert np.array_equal(found, symbols[: len(found)])
        for decoder in ends:
            assert np.array_equal(decoder.take(len(found), alphabet), found)
        if len(found) < len(symbols):
            # what is missing decides the next one
            assert len({one_or_none(decoder, alphabet) for decoder in (ends[0], ends[-1])}) == 2
            break


def one_or_none(decoder: Decoder, alphabet: Alphabet) -> int | None:
    """The next symbol; None where the bytes are those of none."""
    try:
        return decoder.take_one(alphabet)
    except UserError:
        return None
