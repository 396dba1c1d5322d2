import functools

import jaxtyping
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from vltok.nn.attention import Packing, use_attention
from vltok.nn.sequence_model import SPAN, SPAN_OF_CPU, Cursors, span_of
from vltok.nn.transformer import Transformer, initialise

WIDTH = 16


def transformer(dropout: float = 0.0, layers: int = 2, **options: bool) -> Transformer:
    torch.manual_seed(0)
    return Transformer(WIDTH, heads=2, layers=layers, dropout=dropout, **options)


def test_steps_with_a_cache_equal_the_whole_sequence():
    model = transformer().double().eval()
    lengths = [5, 9, 3]
    hidden = torch.randn(sum(lengths), WIDTH, dtype=torch.float64)
    whole = model(hidden, Packing(torch.tensor(lengths))).split(lengths)
    # images stand at different steps: image i starts i steps late
    cache = model.cache(len(lengths), max(lengths))
    sequences = hidden.split(lengths)
    for step in range(max(lengths) + len(lengths)):
        at = [min(max(step - late, 0), length - 1) for late, length in enumerate(lengths)]
        inputs = torch.stack([sequence[position] for sequence, position in zip(sequences, at, strict=True)])
        cursors = Cursors.at(torch.tensor(at), max(at), max(lengths))
        outputs = model.step(inputs, cache, cursors)
        for output, expected, position in zip(outputs, whole, at, strict=True):
            assert_close(output, expected[position])


@pytest.mark.parametrize(("device", "span"), [("cpu", SPAN_OF_CPU), ("cuda", SPAN)])
def test_no_more_of_the_cache_is_read_than_needed(device, span):
    device = torch.device(device)
    assert span_of(3, 1000, device) == span_of(span - 1, 1000, device) == span
    assert span_of(span, 1000, device) == 2 * span
    assert span_of(3, 10, device) == 10


def test_a_cache_keeps_some_images():
    cache = transformer().cache(3, 4)
    shapes = [(layer.shape[1:], layer.stride()) for layer in cache.layers]
    for number, layer in enumerate(cache.layers):
        layer[:] = torch.arange(3)[:, None, None, None] + 10 * number
    query = torch.randn(3, 2, WIDTH // 2)
    attended = [attend(query) for attend in cache.attending(Cursors.at(torch.tensor([0, 1, 2]), 2, 4))]
    assert [layer[:, 0, 0].round().tolist() for layer in attended] == [[0, 1, 2], [10, 11, 12]]
    cache.keep(torch.tensor([2, 0]))
    attended = [attend(query[:2]) for attend in cache.attending(Cursors.at(torch.tensor([3, 3]), 3, 4))]
    assert [layer[:, 0, 0].round().tolist() for layer in attended] == [[2, 0], [12, 10]]
    assert [(layer.shape[1:], layer.stride()) for layer in cache.layers] == shapes


def test_images_do_not_see_each_other():
    model = transformer()
    hidden = torch.randn(7, WIDTH, requires_grad=True)
    first = model(hidden, Packing(torch.tensor([3, 4])))[:3]
    (gradient,) = torch.autograd.grad(first.sum(), hidden)
    assert gradient[:3].abs().min(dim=1).values.gt(0).all()
    assert not gradient[3:].any()


def test_checkpointing_changes_nothing_but_memory():
    hidden = torch.randn(7, WIDTH)
    packing = Packing(torch.tensor([3, 4]))
    results = []
    for checkpointing in (False, True):
        model = transformer(checkpointing=checkpointing).train()
        output = model(hidden, packing)
        output.square().sum().backward()
        results.append([output, *(parameter.grad for parameter in model.parameters())])
    assert_close(results[0], results[1])


@pytest.mark.parametrize("training", [False, True])
def test_dropout_acts_in_training_alone(training):
    model = transformer(dropout=0.5).train(training)
    hidden, packing = torch.randn(4, WIDTH), Packing(torch.tensor([4]))
    assert torch.equal(model(hidden, packing), model(hidden, packing)) != training


def test_initial_weights_keep_the_residual_stream_small():
    model = transformer(layers=8)
    initialise(model)
    block = model.blocks[0]
    assert block.query_key_value.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.feedforward_out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.1)
    assert not block.feedforward_in.bias.any()


def test_matrices_may_be_of_lower_precision_than_the_stream():
    model = transformer().eval()
    hidden, packing = torch.randn(4, WIDTH), Packing(torch.tensor([4]))
    expected = model(hidden, packing)
    for block in model.blocks:
        for layer in (block.query_key_value, block.attention_out, block.feedforward_in, block.feedforward_out):
            layer.bfloat16()
    output = model(hidden, packing)
    assert output.dtype == torch.float32
    assert_close(output, expected, rtol=0.05, atol=0.05)


def test_compiled_blocks_are_compiled_once(monkeypatch):
    """Other lengths, another packing: the graphs of the second batch serve every later one."""
    # the checks of shapes would be compiled too, and anew for every shape
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    model, compiled = transformer(), transformer(compile=True)
    frames = []
    for lengths in ([3, 4], [5, 2, 4], [1, 8], [6, 6, 2]):
        hidden, packing = torch.randn(sum(lengths), WIDTH), Packing(torch.tensor(lengths))
        assert_close(compiled(hidden, packing), model(hidden, packing))
        frames.append(counter.frame_count)
    assert frames[0] > 0
    assert frames[-1] == frames[1]


def test_attention_dropout_is_that_of_branches_unless_it_says_otherwise():
    (same,) = Transformer(16, 2, 1, dropout=0.3).blocks
    assert (same.dropout, same.attention_dropout) == (0.3, 0.3)
    own = Transformer(16, 2, 1, dropout=0.0, attention_dropout=0.9)
    hidden, packing = torch.randn(4, 16), Packing(torch.tensor([4]))
    assert not torch.equal(own(hidden, packing), own(hidden, packing))
    assert torch.equal(own.eval()(hidden, packing), own(hidden, packing))


def test_every_block_computes_attention_by_the_kernel_that_is_chosen():
    model = nn.Sequential(Transformer(16, 2, 2, dropout=0.0), Transformer(16, 2, 1, dropout=0.0))
    hidden, packing = torch.randn(4, 16), Packing(torch.tensor([1, 3]))
    seen = []

    def attend(query, key, value, packing, dropout, kernel):
        seen.append(kernel)
        return value

    for transformer in model:
        for block in transformer.blocks:
            block.attend = attend
    use_attention(model, "varlen")
    for transformer in model:
        hidden = transformer(hidden, packing)
    assert seen == ["varlen"] * 3
