"""Splits by hash: stable, never empty, about as large as asked."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.pictures.splits import held_out_below, key_bytes, unit_hash


def test_hash_is_pinned() -> None:
    # another value would move pictures between the splits of existing runs
    assert unit_hash("class0/picture.jpg") == pytest.approx(0.37367864974093123, abs=1e-12)


@given(st.sets(st.text(), min_size=2, max_size=50), st.floats(0.001, 0.999))
def test_both_sides_have_pictures(keys: set[str], share: float) -> None:
    hashes = [unit_hash(key) for key in keys]
    below = held_out_below(hashes, share)
    held_out = sum(value <= below for value in hashes)
    assert 0 < held_out < len(keys)


def test_share_is_about_what_was_asked() -> None:
    hashes = [unit_hash(f"{index}.jpg") for index in range(5000)]
    below = held_out_below(hashes, 0.1)
    assert sum(value <= below for value in hashes) / 5000 == pytest.approx(0.1, abs=0.015)


def test_adding_pictures_moves_none() -> None:
    few = [unit_hash(f"{index}.jpg") for index in range(100)]
    many = few + [unit_hash(f"more {index}.jpg") for index in range(500)]
    assert held_out_below(few, 0.2) == held_out_below(many, 0.2)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 7.0])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.val_share must lie between 0 and 1"):
        held_out_below([0.1, 0.2], share)


def test_one_picture_cannot_be_split() -> None:
    with pytest.raises(UserError, match="too few"):
        held_out_below([0.5], 0.05)


@given(st.text())
def test_hash_does_not_depend_on_the_normal_form_of_a_name(key: str) -> None:
    assert unit_hash(unicodedata.normalize("NFD", key)) == unit_hash(unicodedata.normalize("NFC", key))
    assert key_bytes(unicodedata.normalize("NFD", key)) == key_bytes(unicodedata.normalize("NFC", key))


@given(st.binary(min_size=1))
def test_names_of_any_bytes_have_a_hash(name: bytes) -> None:
    assert 0 <= unit_hash(name.decode("utf-8", "surrogateescape")) < 1
