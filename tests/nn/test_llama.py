"""Llama's parts against plain formulas, and its steps against whole sequences."""

import cmath
import math

import numpy as np
import pytest
import torch

from vltok.errors import UserError
from vltok.nn.attention import Packing, use_attention
from vltok.nn.llama import GridRotation, Llama, RMSNorm, StepRotation, SwiGLU, turned
from vltok.nn.sequence_model import Cursors

SMALL = {"width": 32, "heads": 2, "layers": 2, "dropout": 0.0}


def test_rms_norm_and_swiglu_are_their_formulas() -> None:
    x, norm, layer = torch.randn(3, 8), RMSNorm(8), SwiGLU(8, 12)
    torch.testing.assert_close(norm(x), x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt())
    gate, value = x @ layer.gate.weight.T, x @ layer.value.weight.T
    torch.testing.assert_close(layer(x), (gate * torch.sigmoid(gate) * value) @ layer.out.weight.T)


def test_pairs_are_turned_by_the_step() -> None:
    x = torch.randn(3, 1, 8)
    found = turned(x, StepRotation(8, 100.0)(torch.tensor([0, 1, 7])))
    for row, step in enumerate((0, 1, 7)):
        for pair in range(4):
            number = complex(*x[row, 0, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * step * 100 ** (-pair / 4))
            expected = torch.tensor([number.real, number.imag])
            torch.testing.assert_close(found[row, 0, 2 * pair : 2 * pair + 2], expected)


def test_angles_are_those_of_double_precision_to_the_last_digit() -> None:
    for by, steps in ((StepRotation(8, 100.0), (0, 7, 1023)), (GridRotation(5, 16, 100.0), (1, 36, 5116))):
        cosines, sines = by(torch.tensor(steps))
        for row, step in enumerate(steps):
            places = [step] if isinstance(by, StepRotation) else [(step - 1) // 5, (step - 1) % 5]
            angles = [place * 100 ** (-pair / 4) for place in places for pair in range(4)]
            assert cosines[row].tolist() == [np.float32(math.cos(angle)) for angle in angles]
            assert sines[row].tolist() == [np.float32(math.sin(angle)) for angle in angles]


def test_a_half_is_turned_by_the_row_the_other_by_the_column_and_the_start_is_zero() -> None:
    x = torch.randn(4, 2, 8)
    found = turned(x, GridRotation(5, 8, 100.0)(torch.tensor([0, 1, 4, 13])))
    by = StepRotation(4, 100.0)
    rows = turned(x[..., :4], by(torch.tensor([0, 0, 0, 2])))
    columns = turned(x[..., 4:], by(torch.tensor([0, 0, 3, 2])))
    expected = torch.cat([rows, columns], dim=2)
    assert not found[0].any()
    torch.testing.assert_close(found[1:], expected[1:])


@pytest.mark.parametrize("columns", [None, 3])
@torch.no_grad()
def test_steps_equal_whole_sequences(columns) -> None:
    model = Llama(columns, **SMALL).eval()
    hidden = torch.randn(2, 7, 32)
    whole = model(hidden.flatten(0, 1), Packing(torch.tensor([7, 7]))).view(2, 7, 32)
    cache = model.cache(2, 7)
    for step in range(7):
        found = model.step(hidden[:, step], cache, Cursors.at(torch.tensor([step, step]), step, 7))
        torch.testing.assert_close(found, whole[:, step], rtol=1e-4, atol=1e-5)


def test_attention_is_computed_by_the_kernel_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def attend(query, key, value, packing, kernel):
        seen.append(kernel)
        return value

    monkeypatch.setattr("vltok.nn.llama.packed_attention", attend)
    model = Llama(3, **SMALL)
    use_attention(model, "sdpa")
    model(torch.randn(5, 32), Packing(torch.tensor([2, 3])))
    assert seen == ["sdpa"] * 2


def test_gradients_with_checkpointing_are_the_same() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = Llama(3, **SMALL, checkpointing=checkpointing).train()
        model(torch.randn(5, 32), Packing(torch.tensor([2, 3]))).square().sum().backward()
        gradients.append(model.blocks[0].query_key_value.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("heads", [0, 2])
def test_a_width_that_heads_do_not_divide_is_refused(heads: int) -> None:
    with pytest.raises(UserError, match=rf"width must be a multiple of four times heads; 20 is none of 4 · {heads}"):
        Llama(width=20, heads=heads)


def test_a_grid_has_columns() -> None:
    with pytest.raises(UserError, match="columns must be at least 1, not 0"):
        Llama(0, **SMALL)
