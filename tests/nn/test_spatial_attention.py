import torch

from vltok.nn.spatial_attention import SpatialAttention


def test_every_place_gathers_from_all_by_scaled_scores() -> None:
    attention, x = SpatialAttention(8), torch.randn(2, 8, 3, 5)
    normed = attention.norm(x)
    query, key, value = (
        projection(normed).flatten(2) for projection in (attention.query, attention.key, attention.value)
    )
    scores = torch.einsum("bci,bcj->bij", query, key) * 8**-0.5
    gathered = torch.einsum("bij,bcj->bci", scores.softmax(dim=2), value).view_as(x)
    torch.testing.assert_close(attention(x), x + attention.out(gathered))


def test_it_moves_with_its_places() -> None:
    attention, x = SpatialAttention(8), torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(attention(x.flip(3)), attention(x).flip(3))


def test_every_parameter_gets_a_gradient() -> None:
    attention = SpatialAttention(8)
    attention(torch.randn(1, 8, 3, 2)).square().sum().backward()
    assert [name for name, parameter in attention.named_parameters() if parameter.grad is None] == []
