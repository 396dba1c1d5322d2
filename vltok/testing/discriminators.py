"""What every discriminator must hold."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.func import functional_call

from vltok.errors import UserError
from vltok.interfaces import Discriminator
from vltok.losses.adversarial import hinge_discriminator_loss
from vltok.testing.modules import TrainableContract, pictures


class DiscriminatorContract(TrainableContract[Discriminator]):
    """Tests of a discriminator, which a test class inherits.

    Attributes:
        image_size: The height and width of images to try.
    """

    image_size: tuple[int, int] = (64, 64)

    def test_there_is_a_logit_for_each_patch(self):
        for mode in (True, False):
            discriminator = self.build().train(mode)
            for batch in (1, 3):
                logits = discriminator(pictures(batch, *self.image_size))
                assert logits.dim() == 4 and logits.shape[:2] == (batch, 1) and logits.numel() >= batch
                assert logits.dtype.is_floating_point and logits.isfinite().all()

    def test_images_that_are_too_small_are_refused(self):
        discriminator = self.build().eval()
        with contextlib.suppress(UserError):
            assert discriminator(pictures(1, 2, 2)).numel() >= 1

    def test_images_of_a_batch_do_not_meet_in_evaluation(self):
        discriminator = self.build().eval()
        images = self._images()
        alone = torch.cat([discriminator(image[None]) for image in images])
        torch.testing.assert_close(discriminator(images), alone, rtol=1e-3, atol=1e-3)

    def test_its_gradient_reaches_the_images(self):
        """The tokenizer learns through it, while its own parameters stand still."""
        discriminator = self.build().train()
        images = self._images().requires_grad_()
        frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
        logits = functional_call(discriminator, frozen, (images,))
        assert logits.requires_grad, "no gradient reaches the images"
        (gradient,) = torch.autograd.grad((logits * torch.randn_like(logits)).sum(), images)
        assert gradient.isfinite().all() and gradient.any()

    def test_it_learns_to_tell_real_from_painted(self):
        discriminator = self.build().train()
        optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
        real = self._images()
        for _ in range(50):
            optimizer.zero_grad()
            hinge_discriminator_loss(discriminator(real), discriminator(_painted(real))).backward()
            optimizer.step()
        assert discriminator(real).mean() > discriminator(_painted(real)).mean() + 0.1

    def _images(self) -> Tensor:
        return self._there(pictures(4, *self.image_size))

    def _respond(self, module: Discriminator) -> list[Tensor]:
        return [module(self._images()).detach()]

    def _loss(self, module: Discriminator) -> Tensor:
        # far from where the two sides would cancel out
        return hinge_discriminator_loss(module(self._images()), module(_painted(self._images())) - 5)


def _painted(images: Tensor) -> Tensor:
    """Pictures without grain, as an early tokenizer gives them."""
    return torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2)
