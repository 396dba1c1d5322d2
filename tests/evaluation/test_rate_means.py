"""The means of a curve that a bundle keeps."""

from pathlib import Path

import pytest

from vltok.errors import UserError
from vltok.evaluation.rate_means import RateMeans
from vltok.io.bundle_files import CURVE


@pytest.mark.parametrize("text", ["{}", "[]", "[" * 5000, '{"version": 1}'])
def test_a_damaged_curve_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CURVE).write_text(text)
    with pytest.raises(UserError, match="is damaged: remove it, and measure anew with 'vltok rate'") as error:
        RateMeans.stored(tmp_path, "0" * 64)
    assert "\n" not in str(error.value)


def test_the_curve_of_other_weights_is_not_shown(tmp_path: Path) -> None:
    means = RateMeans([], {"psnr": 20.0, "file_bits_per_pixel": 1.0}, {}, "few")
    means.store(tmp_path, "0" * 64)
    assert RateMeans.stored(tmp_path, "0" * 64) == means and RateMeans.stored(tmp_path, "1" * 64) is None
