"""What people call the figures."""

import pytest

from vltok.evaluation.words import in_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("psnr", "PSNR [dB]"),
        ("codebook_usage", "codebook usage"),
        ("frechet_distance/timm:resnet18.a1_in1k", "Fréchet distance, timm:resnet18.a1_in1k"),
        ("<b>/x_y", "<b>/x_y"),
    ],
)
def test_figures_in_words(name: str, words: str) -> None:
    assert in_words(name) == words
