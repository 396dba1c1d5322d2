"""Corrupt pictures are counted and named once, and too many are an error."""

import warnings

import pytest

from vltok.errors import UserError
from vltok.loading.skipping import Skipped, SkippedPictures


def test_each_is_named_once() -> None:
    skipped = SkippedPictures(0.5)
    with pytest.warns(UserWarning, match=r"skipped the corrupt picture b\.jpg: the file is empty"):
        skipped.add([Skipped("b.jpg", "the file is empty")], total=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skipped.add([Skipped("b.jpg", "the file is empty")], total=10)
    assert skipped.keys == ["b.jpg"]


@pytest.mark.parametrize(
    ("share", "total", "allowed"),
    [(0.01, 1000, 10), (0.29, 100, 29), (0.01, 100, 3), (0.01, 8, 2), (0.01, 3, 0), (0.0, 1000, 0), (1.0, 5, 5)],
)
@pytest.mark.filterwarnings("ignore:skipped")
def test_error_past_the_share(share: float, total: int, allowed: int) -> None:
    skipped = SkippedPictures(share)
    skipped.add([Skipped(f"{index}.jpg", "broken") for index in range(allowed)], total)
    with pytest.raises(
        UserError, match=rf"{allowed + 1} or more of {total} .* data\.max_corrupt {share:g} .*0\.jpg|one"
    ):
        skipped.add([Skipped("one more.jpg", "broken")], total)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(UserError, match=r"data\.max_corrupt must lie between 0 and 1"):
        SkippedPictures(share)
