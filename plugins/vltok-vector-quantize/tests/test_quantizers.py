"""Each quantizer holds the contract, and each code counts once."""

import pytest
import torch

from vltok.errors import UserError
from vltok.testing import QuantizerContract
from vltok_vector_quantize.codebooks import ResidualVectorQuantizer, RotationVectorQuantizer, SimVectorQuantizer
from vltok_vector_quantize.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer, ProductFSQ


class TestSimVQ(QuantizerContract):
    def build(self):
        return SimVectorQuantizer(32, 6)


class TestRotationVQ(QuantizerContract):
    read_backs = 6  # the library asks whether codes are out of use

    def build(self):
        return RotationVectorQuantizer(32, 6)


class TestResidualVQ(QuantizerContract):
    read_backs = 9  # each stage does

    def build(self):
        return ResidualVectorQuantizer(16, 6, codebooks=3)


class TestProductFSQ(QuantizerContract):
    def build(self):
        return ProductFSQ([4, 3], codebooks=2)


class TestLFQ(QuantizerContract):
    def build(self):
        return LookupFreeQuantizer(bits=6, codebooks=2)


class TestBSQ(QuantizerContract):
    def build(self):
        return BinarySphericalQuantizer(bits=6, codebooks=1)


#: A coarse code on 2 × 2 cells beside four fine ones; a row below of weight 0.
WEIGHTS = torch.tensor([[0.25, 0.25, 1, 1]] * 2 + [[0.0] * 4])[None, None]


@pytest.mark.parametrize("make", [TestSimVQ, TestRotationVQ, TestResidualVQ, TestProductFSQ, TestLFQ, TestBSQ])
def test_in_training_each_code_counts_once(make) -> None:
    """The same codes side by side teach the same: losses, gradients, and what is averaged over steps."""
    codes = torch.randn(1, make().build().dimension, 1, 5)
    fine = codes[..., 1:].unflatten(3, (2, 2)).squeeze(2)
    grid = torch.cat([codes[..., :1].expand(-1, -1, 2, 2), fine], dim=3)
    grid = torch.cat([grid, torch.randn(1, grid.shape[1], 1, 4)], dim=2)
    found = []
    for vectors, weights in ((grid, WEIGHTS), (codes, None)):
        torch.manual_seed(0)
        quantizer = make().build().train()
        vectors = vectors.clone().requires_grad_()
        given = quantizer(vectors, weights)
        (given.loss + 0 * vectors.sum()).backward()
        ids = given.ids if weights is None else given.ids[:, :2]
        gradient = vectors.grad if weights is None else vectors.grad[:, :, :2]
        found.append((given.loss, ids, gradient.sum((0, 2, 3)), dict(quantizer.state_dict())))
    (loss, ids, gradient, state), (expected, side_by_side, other, other_state) = found
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, other)
    torch.testing.assert_close(state, other_state)
    assert (ids[0, :2, :2] == side_by_side[0, 0, 0]).all()
    assert ids[0, :, 2:].flatten(0, 1).equal(side_by_side[0, 0, 1:])


def test_a_code_of_many_bits_needs_no_table_of_all_codes() -> None:
    quantizer = LookupFreeQuantizer(bits=64, codebooks=8)
    assert (quantizer.size, quantizer.codebooks, quantizer.dimension) == (256, 8, 64)
    assert quantizer(torch.randn(1, 64, 2, 2)).ids.shape == (1, 2, 2, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimVectorQuantizer(0, 4), r"quantizer\.size must be at least 1"),
        (lambda: RotationVectorQuantizer(8, 1), r"quantizer\.dimension must be at least 2"),
        (lambda: SimVectorQuantizer(8, 4, commitment=-1), r"quantizer\.commitment must be at least 0"),
        (lambda: ResidualVectorQuantizer(8, 4, codebooks=1), r"quantizer\.codebooks must be at least 2.*rotation-vq"),
        (lambda: ProductFSQ([]), r"quantizer\.levels must be numbers of at least 3"),
        (lambda: ProductFSQ([8, 2]), r"quantizer\.levels must be numbers of at least 3"),
        (lambda: LookupFreeQuantizer(bits=5, codebooks=2), r"quantizer\.bits must be a multiple of the 2 codebooks"),
        (lambda: BinarySphericalQuantizer(bits=36, codebooks=1), r"give at least 3 codebooks"),
    ],
)
def test_what_no_quantizer_can_have_is_refused(make, message) -> None:
    with pytest.raises(UserError, match=message):
        make()
