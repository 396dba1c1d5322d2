"""What is said of codes. `vltok evaluate` tests the measuring itself, in one process and in two."""

import pytest
import torch

from vltok.codes import Codes, CodeSpec
from vltok.evaluation.measurement import describe_codes
from vltok.sequences.statistics import CodeCounts


def test_a_granularity_that_nothing_uses_has_no_perplexity() -> None:
    spec = CodeSpec(9, (4, 8))
    codes = Codes(torch.tensor([1, 2, 3, 4]), torch.tensor([4]), torch.zeros(1, 2, 2, dtype=torch.long))
    described = describe_codes(CodeCounts.of(codes, spec, 256), spec)
    assert described["codebook_perplexity"] == {"any": pytest.approx(4), "8": pytest.approx(4), "4": 0.0}
