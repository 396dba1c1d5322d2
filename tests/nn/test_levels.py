import pytest

from vltok.errors import UserError
from vltok.nn.levels import Level, plan_levels


def test_levels_double_their_factor_up_to_the_largest() -> None:
    assert plan_levels(4, width=32, multipliers=[1, 2, 3], attention_factors=[4, 2]) == (
        Level(factor=1, channels=32, attention=False),
        Level(factor=2, channels=64, attention=True),
        Level(factor=4, channels=96, attention=True),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 8, [1, 1, 1, 1], []), "factor 12 is no power of two"),
        ((0, 8, [1], []), "factor 0 is no power of two"),
        ((8, 8, [1, 1, 2], []), r"multipliers \[1, 1, 2\] has 3 entries, but factor 8 takes 4, .*\[1, 2, 4, 8\]"),
        ((2, 8, [1, 0], []), "must be at least 1"),
        ((2, 8, [1, 1], [2, 16]), r"attention_factors names \[16\], but the levels have the factors \[1, 2\]"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        plan_levels(*arguments)
