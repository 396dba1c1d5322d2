"""What lies beside codes, as far as it is known before them."""

import numpy as np
import torch

from vltok.codes import Codes, CodeSpec
from vltok.compression.neighbours import Neighbours, lay, neighbours
from vltok.testing.outcomes import random_codes


def test_finer_codes_are_not_known_and_the_edge_is_a_symbol_of_its_own() -> None:
    spec = CodeSpec(10, (8, 4))
    # coarse, fine
    codes = Codes(torch.tensor([7, 1, 2, 3, 4]), torch.tensor([5]), torch.tensor([[[0, 1]]]))
    code_map, grains = codes.to_code_map(spec).numpy(), codes.grains.numpy()
    later, edge, fine = 20 + 1, 22, 10
    coarse = neighbours(code_map, grains, 0, spec)
    assert (coarse.ids.tolist(), coarse.left.tolist(), coarse.above.tolist()) == ([7], [edge], [edge])
    finer = neighbours(code_map, grains, 1, spec)
    assert finer.ids.tolist() == [1, 2, 3, 4]
    assert finer.left.tolist() == [7, fine + 1, 7, fine + 3]
    assert finer.above.tolist() == [edge, edge, fine + 1, fine + 2]
    mirrored = neighbours(code_map[:, :, ::-1], grains[:, :, ::-1], 0, spec)
    assert mirrored.left.tolist() == [later] and mirrored.above.tolist() == [edge]


def test_codes_are_laid_as_they_are_packed() -> None:
    spec = CodeSpec(50, (16, 8, 4), (3, 5))
    for codes in random_codes(spec, 4):
        code_map, grains = np.zeros((12, 20), dtype=np.int64), codes.grains[0].numpy()
        at = codes.granularities(spec)
        for granularity in range(3):
            lay(codes.ids[at == granularity].numpy(), code_map, grains, granularity, spec)
        assert np.array_equal(code_map, codes.to_code_map(spec)[0].numpy())


def test_batches_are_joined_in_order() -> None:
    parts = [Neighbours(np.arange(n), np.arange(n) + 5, np.arange(n) + 9, np.arange(n)) for n in (2, 3)]
    found = Neighbours.joined(parts)
    assert found.ids.tolist() == [0, 1, 0, 1, 2] and found.above.tolist() == [9, 10, 9, 10, 11]
    assert found.of(found.image == 1).left.tolist() == [6, 6]
