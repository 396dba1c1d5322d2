"""What every encoder must hold."""

from __future__ import annotations

import torch
from torch import Tensor

from vltok.codes import CodeSpec
from vltok.interfaces import Encoder
from vltok.testing.modules import TrainableContract, pictures, smallest_and_larger


class EncoderContract(TrainableContract[Encoder]):
    """Tests of an encoder, which a test class inherits.

    Attributes:
        image_size: The height and width of images to try, for an encoder that takes no others; None tries one region
            and two by three of them.
    """

    image_size: tuple[int, int] | None = None

    def test_it_says_what_it_gives(self):
        encoder = self.build()
        assert tuple(encoder.factors) == CodeSpec(1, encoder.factors).factors, "factors go from coarse to fine"
        assert len(encoder.factors) >= 1 and encoder.channels >= 1

    def test_there_is_a_feature_map_for_each_factor(self):
        encoder = self.build()
        for height, width in smallest_and_larger(encoder.factors[0], self.image_size):
            for batch in (1, 3):
                maps = encoder.eval()(pictures(batch, height, width))
                sizes = [(batch, encoder.channels, height // factor, width // factor) for factor in encoder.factors]
                assert [tuple(found.shape) for found in maps] == sizes
                assert all(found.dtype.is_floating_point and found.isfinite().all() for found in maps)

    def test_images_of_a_batch_do_not_meet_in_evaluation(self):
        encoder = self.build().eval()
        images = self._images(encoder)
        for index, found in enumerate(encoder(images)):
            alone = torch.cat([encoder(image[None])[index] for image in images])
            torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)

    def test_every_map_sees_the_images(self):
        encoder = self.build().train()
        images = self._images(encoder).requires_grad_()
        for found in encoder(images):
            gradient = None
            if found.requires_grad:
                total = (found * torch.randn_like(found)).sum()
                (gradient,) = torch.autograd.grad(total, images, allow_unused=True, retain_graph=True)
            assert gradient is not None and gradient.isfinite().all()
            assert gradient.abs().sum((1, 2, 3)).all(), "an image of the batch is not seen"

    def _images(self, encoder: Encoder) -> Tensor:
        return self._there(pictures(4, *smallest_and_larger(encoder.factors[0], self.image_size)[-1]))

    def _respond(self, module: Encoder) -> list[Tensor]:
        return list(module(self._images(module)))

    def _loss(self, module: Encoder) -> Tensor:
        return sum((found * torch.randn_like(found)).sum() for found in module(self._images(module)))
