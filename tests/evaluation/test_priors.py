"""Priors are measured alike by any number of processes."""

import pytest

import vltok
from tests.cli.exports import PRIOR
from vltok.drawing.config import SamplingConfig
from vltok.evaluation.measurement import ProcessShare
from vltok.evaluation.priors import _draws


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_images_of_several_sizes_are_drawn_in_the_same_batches_by_any_number_of_processes(processes: int) -> None:
    options = {key: value for key, value in PRIOR["init_args"].items() if key != "regions"}
    prior = vltok.build({"class_path": "dq-transformer", "init_args": options})
    sizes = [(16, 16), (8, 24), (24, 8)]

    def drawn(count: int, rank: int, processes: int) -> list[tuple[int, int]]:
        share = ProcessShare(rank, processes, 4)
        return [(first, images) for _, first, images in _draws(prior, SamplingConfig(), sizes, share, count)]

    for count in (2, 23, 32):
        alone = drawn(count, 0, 1)
        assert [batch for rank in range(processes) for batch in drawn(count, rank, processes)] == alone
        assert sum(images for _, images in alone) == count
