"""A device without double precision, such as Apple's, whose place here the host takes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vltok import devices
from vltok.drawing.sampling import drawn, streams, uniforms
from vltok.evaluation.distances import SetDistances
from vltok.evaluation.features import Features
from vltok.measures.codes import codebook_perplexity, ratios
from vltok.tokenizers.entropy import entropy_histogram


class WithoutDouble(TorchDispatchMode):
    """Refuses every result in double precision."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if any(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in tree_leaves(found)):
            raise TypeError(f"{function} gives float64, which this device does not have")
        return found


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(devices, "_WITH_DOUBLE", ())
    with WithoutDouble():
        yield


def test_the_host_and_nvidia_s_have_double_precision() -> None:
    wide = {name: devices.widest(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert wide == {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32}


def test_a_draw_in_single_precision_is_legal_and_follows_the_distribution(single: None) -> None:
    found = uniforms(streams(3, torch.arange(20_000)), torch.zeros(20_000, dtype=torch.long))
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() < 1
    logits = torch.tensor([0.0, -torch.inf, 1.0]).expand(20_000, 3)
    shares = torch.bincount(drawn(logits, found), minlength=3) / 20_000
    torch.testing.assert_close(shares, logits[0].softmax(-1), atol=0.02, rtol=0)
    last = torch.full((3,), 1 - 2.0**-23)  # the largest number there is
    assert drawn(torch.tensor([[0.0, -torch.inf]] * 3), last).tolist() == [0, 0, 0]


def test_entropies_are_counted_in_single_precision(single: None) -> None:
    counts = entropy_histogram(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert counts.sum() == 4 and counts[0] == 1


def test_shares_of_codes_and_granularities_are_measured_in_single_precision(single: None) -> None:
    uses = torch.tensor([[3, 3, 0], [0, 0, 0]])
    torch.testing.assert_close(codebook_perplexity(uses), torch.tensor([2.0, 0.0]))
    assert ratios(torch.tensor([[[0, 1], [1, 1]]]), (16, 8)) == {16: 0.25, 8: 0.75}


def test_distances_between_sets_are_computed_on_the_host() -> None:
    distances = SetDistances(torch.device("mps"))
    for real in (True, False):
        distances.update(Features(torch.rand(8, 2) + real, None), real=real)
    assert distances.compute()["frechet"].value > 1
