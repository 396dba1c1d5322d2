"""Bits an image are those of likelihoods alone."""

import math

import pytest
import torch

from vltok.codes import Codes
from vltok.interfaces import PriorLoss
from vltok.measures.likelihood import likelihood_figures, likelihood_sums

CODES = Codes(torch.zeros(6, dtype=torch.long), torch.tensor([2, 4]))
PARTS = {"content": torch.tensor(1.5)}


def test_a_likelihood_is_given_in_bits() -> None:
    figures = likelihood_figures(likelihood_sums(PriorLoss(torch.tensor(1.5), PARTS), CODES))
    assert figures["bits_per_image"] == pytest.approx(1.5 * 3 / math.log(2))
    assert figures["content_per_code"] == figures["content"] == 1.5


def test_another_loss_is_not() -> None:
    figures = likelihood_figures(likelihood_sums(PriorLoss(torch.tensor(2.0), PARTS, likelihood=False), CODES))
    assert figures == {"loss": 2.0, "content": 1.5}
