"""What every decoder must hold."""

from __future__ import annotations

import torch
from torch import Tensor

from vltok.interfaces import Decoder
from vltok.testing.modules import TrainableContract


class DecoderContract(TrainableContract[Decoder]):
    """Tests of a decoder, which a test class inherits.

    Attributes:
        grid: The height and width of the finest grid to try, for a decoder that takes no others; None tries one cell
            and four by six of them.
    """

    grid: tuple[int, int] | None = None

    def test_it_says_what_it_takes(self):
        decoder = self.build()
        assert decoder.channels >= 1 and decoder.factor >= 1

    def test_each_cell_becomes_its_pixels(self):
        decoder = self.build().eval()
        for height, width in [(1, 1), (4, 6)] if self.grid is None else [self.grid]:
            for batch in (1, 3):
                images = decoder(torch.randn(batch, decoder.channels, height, width))
                assert images.shape == (batch, 3, height * decoder.factor, width * decoder.factor)
                assert images.dtype.is_floating_point and images.isfinite().all()

    def test_images_of_a_batch_do_not_meet_in_evaluation(self):
        decoder = self.build().eval()
        vectors = self._vectors(decoder)
        alone = torch.cat([decoder(each[None]) for each in vectors])
        torch.testing.assert_close(decoder(vectors), alone, rtol=1e-3, atol=1e-3)

    def test_every_vector_is_seen(self):
        decoder = self.build().train()
        vectors = self._vectors(decoder).requires_grad_()
        images = decoder(vectors)
        gradient = None
        if images.requires_grad:
            total = (images * torch.randn_like(images)).sum()
            (gradient,) = torch.autograd.grad(total, vectors, allow_unused=True)
        assert gradient is not None and gradient.isfinite().all()
        assert gradient.abs().sum(1).all(), "a vector leaves no trace in the images"

    def test_the_last_layer_gives_the_pixels(self):
        decoder = self.build().train()
        assert any(decoder.last_layer is parameter for parameter in decoder.parameters())
        (gradient,) = torch.autograd.grad(decoder(self._vectors(decoder)).sum(), decoder.last_layer, allow_unused=True)
        assert gradient is not None and gradient.any()

    def _vectors(self, decoder: Decoder) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return self._there(torch.randn(4, decoder.channels, *(self.grid or (4, 6)), generator=generator))

    def _respond(self, module: Decoder) -> list[Tensor]:
        return [module(self._vectors(module))]

    def _loss(self, module: Decoder) -> Tensor:
        images = module(self._vectors(module))
        return (images * torch.randn_like(images)).sum()
