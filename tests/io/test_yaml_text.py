"""YAML of strangers: plain values, and not too many."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.io import yaml_text
from vltok.io.recipes import read

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
HOSTILE = [
    (BOMB, "there are more than 100000 values"),
    ("a: &a [*a]", "a value holds itself"),
    ("[" * 5000, "nested"),
    ("- " * 100 + "a", "nested more than 60 deep"),
    ("a: 1\na: 2", "key 'a' stands here twice"),
    ("a: {4:0.5,8:0.5}", "'4:0.5' is a key without a value: put a space after each colon"),
    ("? [a]\n: 1", "a key must be a word or a number"),
    ("a: !!python/object/apply:os.system [touch ran]", "could not determine a constructor"),
    ("a: !!python/name:os.system", "could not determine a constructor"),
]


@pytest.mark.parametrize(("text", "problem"), HOSTILE, ids=[problem for _, problem in HOSTILE])
def test_hostile_texts_are_refused(text: str, problem: str, tmp_path) -> None:
    with pytest.raises(yaml.YAMLError, match=problem):
        yaml_text.load(text)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match="is not YAML") as raised:
        read(tmp_path / "recipe.yaml")
    assert "\n" not in str(raised.value)


def test_what_people_write_is_read() -> None:
    assert yaml_text.load("a: &a {b: [1, 2.5]}\nc: *a\nd: {<<: *a, e: null}\n4: x") == {
        "a": {"b": [1, 2.5]},
        "c": {"b": [1, 2.5]},
        "d": {"b": [1, 2.5], "e": None},
        4: "x",
    }
    assert yaml_text.load("") is None


def test_plain_words_mean_what_they_look_like() -> None:
    text = "[no, on, 12:00:00, 2024-01-31, 1e5, 1e-4, .5, 0x10, 1_000, 007, ~, null, true, =, <<, -.inf]"
    read_ = ["no", "on", "12:00:00", "2024-01-31", 1e5, 1e-4, 0.5, 16, 1000, 7, None, None, True, "=", "<<", -math.inf]
    assert yaml_text.load(text) == read_


def test_a_space_that_is_missing_in_a_block_is_named() -> None:
    with pytest.raises(yaml.YAMLError) as raised:
        yaml_text.load("a:\n  b:1\n  c: 2")
    assert yaml_text.problem_of(raised.value).endswith(
        "put a space after each colon, and a text that holds one into quotes"
    )


#: Letters of which much consists that YAML could take for something else.
_LOOKALIKES = st.text("0123456789eExoa_.:+-~nulfaistrENO ,{}[]#&*!|>'\"%@\n\t\x85\u2028\ufeff", max_size=12)
_VALUES = st.recursive(
    _LOOKALIKES | st.text(max_size=12) | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_LOOKALIKES, values, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(_VALUES)
def test_what_is_written_is_read_back_equal(value: object) -> None:
    text = yaml_text.dump({"key": value})
    assert yaml_text.load(text) == {"key": value}


@settings(deadline=None)
@given(_LOOKALIKES | st.text(max_size=12))
def test_other_readers_read_the_same_texts(text: str) -> None:
    assert yaml.safe_load(yaml_text.dump({"key": text})) == {"key": text}
