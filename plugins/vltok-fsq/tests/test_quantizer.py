import math

import pytest
import torch

from vltok.errors import UserError
from vltok.testing import QuantizerContract
from vltok_fsq.quantizer import FiniteScalarQuantizer


class TestContract(QuantizerContract):
    def build(self):
        return FiniteScalarQuantizer([4, 3])


def test_every_code_can_be_reached_and_is_found_again():
    quantizer = FiniteScalarQuantizer([8, 6, 5])
    assert (quantizer.size, quantizer.dimension) == (240, 3)
    codebook = quantizer.lookup(torch.arange(240).view(1, 1, 240))
    assert codebook.flatten(2)[0].unique(dim=1).shape[1] == 240 and codebook.abs().max() == 1
    found = quantizer(torch.randn(1, 3, 200, 500, generator=torch.Generator().manual_seed(0)) * 2)
    assert found.ids.unique().numel() == 240
    assert found.vectors.equal(quantizer.lookup(found.ids))


@pytest.mark.parametrize("levels", range(2, 17))
def test_a_channel_rounds_to_its_levels_in_order(levels):
    found = FiniteScalarQuantizer([levels])(torch.linspace(-9, 9, 4001).view(1, 1, 1, -1))
    ids = found.ids.flatten()
    assert ids.diff().min() >= 0 and ids.unique().tolist() == list(range(levels))
    # as the paper has it: ⌊L/2⌋ levels below zero, zero itself, and the rest above
    assert found.vectors.unique().tolist() == pytest.approx([(i - levels // 2) / (levels // 2) for i in range(levels)])


def test_the_bound_is_the_papers():
    """Appendix A.1 in plain Python: half = (L - 1)(1 - ε)/2, offset = ½ for even L, shift = tan(offset / half)."""
    values = [-3.0, -0.4, 0.0, 0.3, 2.0]
    for levels in (4, 5):
        half, offset = (levels - 1) * 0.999 / 2, 0.5 * (levels % 2 == 0)
        bounds = [math.tanh(value + math.tan(offset / half)) * half - offset for value in values]
        vectors = torch.tensor(values).view(1, 1, 1, -1)
        ids = FiniteScalarQuantizer([levels])(vectors).ids.flatten().tolist()
        assert ids == [round(bound) + levels // 2 for bound in bounds]


def test_the_gradient_passes_the_rounding():
    vectors = torch.zeros(1, 1, 1, 1, requires_grad=True)
    FiniteScalarQuantizer([5])(vectors).vectors.sum().backward()
    assert vectors.grad.item() == pytest.approx(0.999)  # that of tanh at 0, over a range that keeps its margin


def test_nothing_is_learned_and_there_is_no_loss():
    quantizer = FiniteScalarQuantizer([8, 5, 5, 5])
    assert not list(quantizer.parameters()) and not quantizer.state_dict()
    vectors = torch.randn(2, 4, 3, 3)
    found, weighted = quantizer(vectors), quantizer(vectors, torch.rand(2, 1, 3, 3))
    assert found.loss == 0 and found.loss.shape == ()
    assert weighted.ids.equal(found.ids) and weighted.loss == 0


def test_half_precision_rounds_to_the_same_levels():
    quantizer = FiniteScalarQuantizer([1000])
    vectors = torch.randn(1, 1, 10, 10).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer.bfloat16()(vectors)
    assert found.ids.equal(FiniteScalarQuantizer([1000])(vectors.float()).ids)
    assert found.vectors.dtype == torch.float32


@pytest.mark.parametrize("levels", [[], [8, 1], [0], [-5]])
def test_what_no_channel_can_have_is_refused(levels):
    with pytest.raises(UserError, match=r"quantizer\.levels"):
        FiniteScalarQuantizer(levels)
