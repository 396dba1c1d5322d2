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
