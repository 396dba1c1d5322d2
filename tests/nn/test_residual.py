import pytest
import torch

from vltok.errors import UserError
from vltok.nn.residual import AttentiveResidual, ResidualBlock, ResidualStage


def test_block_without_weights_passes_its_input_on() -> None:
    block = ResidualBlock(8)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 8, 5, 3)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    "module",
    [
        lambda: ResidualBlock(8),
        lambda: ResidualBlock(8, 12),
        lambda: ResidualStage(8, 12, blocks=2, attention=True),
        lambda: ResidualStage(8, 4, blocks=1),
        lambda: AttentiveResidual(8),
    ],
)
def test_every_parameter_gets_a_gradient_on_odd_sizes(module) -> None:
    module = module()
    out = module(torch.randn(2, 8, 5, 3))
    assert out.shape[2:] == (5, 3)
    out.square().sum().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


def test_a_stage_needs_a_block() -> None:
    with pytest.raises(UserError, match="blocks must be at least 1, not 0"):
        ResidualStage(8, 8, blocks=0)


def test_dropout_acts_in_training_only() -> None:
    block, x = ResidualBlock(8, dropout=0.5), torch.randn(2, 8, 4, 4)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
