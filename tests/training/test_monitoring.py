"""Codebook usage, code lengths and ratios."""

import torch

from vltok.codes import Codes
from vltok.training.monitoring import CodebookUsage, code_figures


def test_usage_counts_codes_until_it_is_reset():
    usage = CodebookUsage(size=4)
    usage.update(torch.tensor([0, 0, 1]))
    assert usage.compute() == 0.5
    usage.update(torch.tensor([3]))
    assert usage.compute() == 0.75
    usage.reset()
    usage.update(torch.tensor([2]))
    assert usage.compute() == 0.25


def test_usage_forgets_what_is_behind_its_window():
    usage = CodebookUsage(size=4, window=2)
    shares = []
    for code in (0, 1, 2, 2, 2):
        usage.update(torch.tensor([code]))
        shares.append(usage.compute().item())
    assert shares == [0.25, 0.5, 0.5, 0.25, 0.25]


def test_figures_of_codes():
    grains = torch.tensor([[[0, 1]], [[0, 0]]])
    codes = Codes(torch.zeros(7, dtype=torch.long), torch.tensor([5, 2]), grains)
    figures = {name: value.item() for name, value in code_figures(codes, (16, 8)).items()}
    assert figures == {"code_length": 3.5, "ratio_16": 0.75, "ratio_8": 0.25}


def test_codes_without_a_grid_have_no_ratios():
    codes = Codes(torch.zeros(7, dtype=torch.long), torch.tensor([5, 2]))
    assert list(code_figures(codes, ())) == ["code_length"]
