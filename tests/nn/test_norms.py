import pytest
import torch
import torch.nn.functional as F

from vltok.nn.norms import group_norm, group_norm_silu


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (32, 32), (48, 16), (8, 8), (7, 1)])
def test_norm_has_32_groups_or_as_many_as_divide(channels, groups) -> None:
    x = 3 * torch.randn(2, channels, 4, 5) + 1
    expected = F.group_norm(x, groups, eps=1e-6)
    torch.testing.assert_close(group_norm(channels)(x), expected)
    torch.testing.assert_close(group_norm_silu(channels)(x), expected * expected.sigmoid())


def test_the_norm_of_a_single_value_is_its_bias() -> None:
    norm = group_norm(8)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(torch.randn(1, 8, 1, 1)), norm.bias.view(1, 8, 1, 1), atol=1e-3, rtol=0)
