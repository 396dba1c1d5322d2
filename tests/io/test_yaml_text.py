"""YAML of strangers: plain values, and not too many."""

import pytest
import yaml

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


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="month must be in"):
        yaml_text.load("a: 2001-99-99")


def test_what_people_write_is_read() -> None:
    assert yaml_text.load("a: &a {b: [1, 2.5]}\nc: *a\nd: {<<: *a, e: null}\n4: x") == {
        "a": {"b": [1, 2.5]},
        "c": {"b": [1, 2.5]},
        "d": {"b": [1, 2.5], "e": None},
        4: "x",
    }
    assert yaml_text.load("") is None
