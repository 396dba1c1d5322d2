"""Labels that mean the same in two places, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vltok.errors import UserError
from vltok.loading.classes import same_classes

NAMES = st.lists(st.text(max_size=3), max_size=4)


@given(NAMES, NAMES)
def test_classes_that_differ_are_refused(ours: list[str], theirs: list[str]) -> None:
    same_classes("--data", ("a", ours), ("b", list(ours)))
    same_classes("--data", ("a", ours), ("b", None))
    same_classes("--data", ("a", None), ("b", theirs))
    same_classes("--data", ("a", ours + theirs), ("b", ours))
    if ours[: len(theirs)] != theirs:
        with pytest.raises(UserError, match=r"^--data: the classes of 'b' \(\d\) are not those of 'a' \(\d\)"):
            same_classes("--data", ("a", ours), ("b", theirs))


def test_the_first_difference_is_named() -> None:
    with pytest.raises(UserError, match="number 1 is 'cat' here and 'bee' there"):
        same_classes("x", ("a", ["ant", "bee", "cat"]), ("b", ["ant", "cat"]))
    with pytest.raises(UserError, match="number 1 is 'bee' here and none there"):
        same_classes("x", ("a", ["ant"]), ("b", ["ant", "bee"]))
