import torch

from vltok_tail_drop.standard import Standard


def vectors(images: int = 50) -> torch.Tensor:
    """Of three places, of which each has a mean and a spread of its own."""
    noise = torch.randn(images, 3, 4, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 1.0, 5.0])[:, None] + torch.tensor([7.0, -3.0, 0.0])[:, None]


def test_every_place_has_the_same_mean_and_spread():
    given = vectors()
    scale = Standard(3, 4).train()(given)
    on_it = scale.of(given)
    torch.testing.assert_close(on_it.mean(dim=0), torch.zeros(3, 4), rtol=0, atol=1e-3)
    torch.testing.assert_close(on_it.std(dim=0, correction=0), torch.ones(3, 4), rtol=0, atol=0.01)
    torch.testing.assert_close(scale.undo(on_it), given)
    assert scale.undo(torch.zeros(1, 3, 4)).equal(given.mean(dim=0)[None])


def test_afterwards_the_scale_is_the_average_of_the_last_steps():
    standard, given = Standard(3, 4), vectors()
    assert standard.eval()(given) is not None and standard.average.of(given).equal(given / (1 + 1e-6) ** 0.5)
    standard.train()
    for _ in range(3):
        own = standard(given)
    torch.testing.assert_close(standard.average.mean, own.mean)
    standard(given + 1)
    assert ((standard.average.mean > own.mean) & (standard.average.mean < own.mean + 1)).all()
    before = standard.average.mean
    assert standard.eval()(given - 5).mean.equal(before) and standard.average.mean.equal(before)


def test_coming_nearer_to_each_other_gains_vectors_nothing():
    given = vectors().requires_grad_()
    scale = Standard(3, 4).train()(given)
    scale.of(given).square().mean().backward()
    assert (given.grad * scale.spread).abs().max() < 1e-4
