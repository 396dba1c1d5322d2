import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from tests.tiny_priors import TRANSFORMERS, tiny_prior
from vltok.interfaces import SamplingConfig
from vltok.priors.captured import CapturedSteps
from vltok.priors.dq_transformer import DQTransformer
from vltok.priors.sequence import SequencePrior


class Replays:
    """Stands in for CUDA's graphs: what is done while one is captured is done again when it is replayed.

    As of CUDA's own, a capture that fails leaves its stream the current one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captured: list[str] = []
        self.capturing = False
        self.first = self.current = self.stream()
        for name, function in {
            "current_stream": lambda: self.current,
            "Stream": self.stream,
            "stream": self.within,
            "device": lambda _: contextlib.nullcontext(),
            "graph": self.capture,
            "CUDAGraph": self.graph,
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)

    def stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda _: None)

    @contextlib.contextmanager
    def within(self, stream: SimpleNamespace) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def capture(self, graph: SimpleNamespace, **_: object) -> Iterator[None]:
        before, self.current, self.capturing = self.current, self.stream(), True
        try:
            yield
        finally:
            self.capturing = False
        self.current = before

    def graph(self) -> SimpleNamespace:
        self.captured.append("graph")
        return SimpleNamespace(replay=lambda: None)


def test_one_graph_serves_as_many_images_that_see_as_much(monkeypatch):
    replays = Replays(monkeypatch)
    seen = []

    def step(tensors, reach):
        seen.append(reach)
        return [tensor + 1 for tensor in tensors]

    take = CapturedSteps(step)
    for images, span in ((3, 64), (3, 64), (3, 128), (3, 64), (2, 64), (2, 64)):
        tensors = [torch.zeros(images), torch.ones(images, 2)]
        found = take(tensors, ((images, span),))
        assert [tensor.shape for tensor in found] == [tensor.shape for tensor in tensors]
        assert not tensors[0].any(), "what was given has been changed"
    # twice to warm up, and once to capture
    assert [reach for ((*reach,),) in seen] == [[3, 64]] * 3 + [[3, 128]] * 3 + [[2, 64]] * 3
    assert len(replays.captured) == 3


def test_steps_of_which_no_graph_can_be_made_are_taken_as_they_are(monkeypatch):
    replays = Replays(monkeypatch)

    def step(tensors, reach):
        if replays.capturing:
            raise RuntimeError("operation not permitted when stream is capturing\nSearch for it")
        return [tensor + 1 for tensor in tensors]

    take, tensors = CapturedSteps(step), [torch.zeros(3)]
    with pytest.warns(UserWarning, match=r"^no CUDA graph .* \(.* capturing\): steps are slower$") as said:
        for expected, span in ((1, 64), (2, 64), (3, 128)):
            tensors = take(tensors, ((3, span),))
            assert tensors[0].tolist() == [expected] * 3
    assert len(said) == len(replays.captured) == 1
    assert replays.current is replays.first


def test_what_is_wrong_with_a_step_itself_is_no_matter_of_graphs(monkeypatch):
    Replays(monkeypatch)

    def step(tensors, reach):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        CapturedSteps(step)([torch.zeros(3)], ((3, 64),))


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("kind", TRANSFORMERS, ids=lambda kind: kind.__name__)
def test_captured_steps_draw_what_steps_draw_one_by_one(kind, guidance, precision):
    factors = (1,) if kind is SequencePrior else (2, 1)
    prior = tiny_prior(kind, 8, factors, (6, 6), width=64, classes=3, label_dropout=0.1).cuda()
    labels = torch.arange(7) % 3
    sampler = prior.sampler(SamplingConfig(guidance=guidance, precision=precision))
    captured = [sampler(labels, torch.Generator().manual_seed(seed), batch_size=3) for seed in range(2)]
    sampler.drawing.observe = lambda *_: None  # nobody could look at the steps of a graph
    for seed, codes in enumerate(captured):
        assert codes.equal(sampler(labels, torch.Generator().manual_seed(seed), batch_size=3))


@pytest.mark.cuda
def test_broken_logits_of_captured_steps_are_told_of():
    prior = tiny_prior(DQTransformer, 8, (2, 1), (4, 4)).cuda()
    torch.nn.init.constant_(prior.content_head.linear.weight, torch.nan)
    with pytest.raises(Exception, match="no numbers"):
        prior.sample(2, SamplingConfig())
